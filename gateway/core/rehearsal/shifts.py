"""What it means for a device to go from one book's profile to another's: services gained and lost.

What lives here: that comparison, made once for each pair of profiles. What must not: devices' states, documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from gateway.core.model import DeviceId, Standing
from gateway.core.policy import Book, Service

Direction = Literal["less", "more", "other"]


class Shift(NamedTuple):
    """One way in which access changes: a profile for another, or the same one that means something else.

    ``gained`` and ``lost`` are services as ``name address:port/protocol``; ``rates`` the bounds on new connections
    before and after ("" none). Profiles may differ and no service: the documents that come with them do.
    """

    before: str
    after: str
    gained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    rates: tuple[str, str] = ("", "")

    @property
    def direction(self) -> Direction:
        """``less`` when services are only lost, ``more`` when only gained, else ``other``."""
        if self.lost:
            return "other" if self.gained else "less"
        return "more" if self.gained else "other"


class Shifts:
    """Every shift from profiles of ``before`` to profiles of ``after``, each made when first asked for."""

    def __init__(self, before: Book, after: Book) -> None:
        self._before, self._after = before, after
        self._same = before is after
        self._known: dict[tuple[str, str], Shift | None] = {}

    def between(self, old: str, new: str) -> Shift | None:
        """What changes for a device that has ``old`` by the one book and ``new`` by the other; None: nothing."""
        key = (old, new)
        try:
            return self._known[key]
        except KeyError:
            made = self._known[key] = None if self._same and old == new else self._between(old, new)
            return made

    def _between(self, old: str, new: str) -> Shift | None:
        had, has = _services(self._before, old), _services(self._after, new)
        rates = (_rate(self._before, old), _rate(self._after, new))
        gained = tuple(service for service in has if service not in had)
        lost = tuple(service for service in had if service not in has)
        if old == new and not gained and not lost and rates[0] == rates[1]:
            return None
        return Shift(old, new, gained, lost, rates if rates[0] != rates[1] else ("", ""))


def _services(book: Book, profile: str) -> tuple[str, ...]:
    return tuple(map(_endpoint, book.reach(profile))) if profile in book.profiles else ()


def _endpoint(service: Service) -> str:
    address = f"[{service.address}]" if service.address.version == 6 else str(service.address)
    return f"{service.name} {address}:{service.port}/{service.protocol}"


def _rate(book: Book, profile: str) -> str:
    found = book.profiles.get(profile)
    if found is None or found.rate is None:
        return ""
    return f"{found.rate.new_connections} new connections per {found.rate.per:g} s"


def lowest_sharer(
    standing: Standing, sharers: Iterable[DeviceId], standing_of: Callable[[DeviceId], Standing | None]
) -> tuple[DeviceId, Standing] | None:
    """Return the living device of lowest standing, below ``standing``, among those judged for its addresses."""
    lowest: tuple[DeviceId, Standing] | None = None
    for other in sharers:
        theirs = standing_of(other)
        if theirs is None or theirs is Standing.RETIRED or theirs >= standing:
            continue
        if lowest is None or theirs < lowest[1]:
            lowest = (other, theirs)
    return lowest
