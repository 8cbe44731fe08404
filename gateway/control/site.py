"""The site's profile: decided anew when a count of standings has changed, once in a turn of the clockwork at most.

It never changes what a device reaches: it says which documents stand on the hosts, and those who render them follow
it here. What must not live here: conditions (the policy's), documents, what a profile means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.control.alarms import Alarms
from gateway.control.devices import Devices
from gateway.control.ports import Notice, SiteNow
from gateway.core import policy
from gateway.core.model import Instant
from gateway.core.policy import NORMAL, Book, SiteDecision

REST = 0.01
"""Seconds between two slices of counting by another book's classes: everybody else has the loop meanwhile."""


class Site:
    """Implements the ``SiteProfiles`` and ``Timed`` ports. ``NORMAL`` runs until the first turn."""

    def __init__(self, devices: Devices, alarms: Alarms) -> None:
        self._devices = devices
        self._alarms = alarms
        self._decision = SiteDecision(NORMAL, ("built-in: normal",))
        self._since = 0.0
        self._book: Book | None = None
        self._version = -1
        self._coming: tuple[Book, Iterator[None]] | None = None
        self._again: float | None = None
        self._watchers: list[Callable[[str], None]] = []

    @property
    def profile(self) -> str:
        """The name of the profile that runs."""
        return self._decision.name

    @property
    def chain(self) -> tuple[str, ...]:
        """One line for each rule that was looked at; the last one is the reason."""
        return self._decision.chain

    def now(self) -> SiteNow:
        """Everything a window shows of the site."""
        counts = self._devices.census.labelled()
        return SiteNow(self.profile, self._since, counts, self.chain, self._alarms.raised())

    def known(self) -> tuple[str, ...]:
        """The profiles that may run by the book, the built-in one too."""
        return tuple(dict.fromkeys((*(rule.name for rule in self._devices.book.site), NORMAL)))

    def watch(self, told: Callable[[str], None]) -> None:
        """Call ``told`` each time another profile begins to run."""
        self._watchers.append(told)

    def next(self) -> float | None:
        """No time of its own, but for counting by another book's classes: otherwise the next turn will do."""
        return self._again

    def jumped(self, now: Instant) -> None:
        """No clock has a say in counts."""

    def turn(self, now: Instant) -> None:
        """Decide anew if a count, or the book, has changed."""
        census, book = self._devices.census, self._devices.book
        if book is not self._book and not self._counted(book, now):
            return
        if census.version == self._version and book is self._book:
            return
        first = self._book is None
        self._version, self._book = census.version, book
        self._decide(book, now, first=first)

    def _counted(self, book: Book, now: Instant) -> bool:
        """Whether the census counts by this book's classes; does a slice of that. The old rules run meanwhile."""
        if self._book is None:
            return True  # made with it
        if self._coming is None or self._coming[0] is not book:
            self._coming = (book, self._devices.census.regrouping(book, self._devices.slots()))
        for _ in self._coming[1]:
            self._again = now.boot + REST
            return False
        self._coming = self._again = None
        return True

    def _decide(self, book: Book, now: Instant, *, first: bool) -> None:
        census, old = self._devices.census, self._decision
        self._decision = policy.decide_site(census.labelled(), census.total, census.by_class(), book)
        name = self._decision.name
        if first:
            self._since = now.wall
        if name == old.name:
            # At a start nobody knows what ran before: a site with rules says what runs now.
            if first and book.site:
                self._devices.notice(Notice("site", name, f"{name}: {self.chain[-1]}", now.wall))
            return
        self._since = now.wall
        self._devices.notice(Notice("site", name, f"{old.name} → {name}: {self.chain[-1]}", now.wall))
        for told in self._watchers:
            told(name)
