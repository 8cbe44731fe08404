"""The site as a whole: its profile, and how much of this host is in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol


class Usage(NamedTuple):
    """How much of this host is in use: shares from 0 to 1, None where it does not tell.

    ``number`` counts samples.
    """

    number: int
    cpu: float | None = None
    memory: float | None = None


class SiteNow(NamedTuple):
    """The site's profile that runs, since when (UNIX seconds), what was counted, and the rules looked at."""

    profile: str
    since: float
    counts: Mapping[str, int]
    chain: tuple[str, ...]
    alarms: Mapping[str, str]  # resources above their threshold, in words


class SiteProfiles(Protocol):
    """Who follows the site's profile: what stands on its hosts may depend on it."""

    @property
    def profile(self) -> str:
        """The name of the one that runs."""
        ...

    def watch(self, told: Callable[[str], None]) -> None:
        """Call ``told`` with the name, on the loop, each time another one begins to run."""
        ...
