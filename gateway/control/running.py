"""The book that runs: one object from which everybody takes it, and what became of the attempts to replace it.

What lives here: values, and the list of those who want to hear of a new book. What must not: reading or judging a
book, carrying out the change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gateway.core.policy import Book
from gateway.kubearmor.render import Library

Result = Literal["taken", "unchanged", "refused", "failed"]
#: Refused: the book is not fit to run. Failed: it is, and could not be put to work; the one before stays.
RESULTS: tuple[Result, ...] = ("taken", "unchanged", "refused", "failed")


class RunningBook(NamedTuple):
    """A book at work: with its rulings made ahead, its profiles' templates, the digest of all its files, the file
    it came from and when it was taken (UNIX seconds)."""

    book: Book
    library: Library
    digest: str
    path: str
    loaded_at: float


class Ended(NamedTuple):
    """What came of one attempt. ``number`` counts attempts from 1, ``at`` is UNIX seconds, ``lines`` are for
    people: what was taken, or every reason why not. ``slice_ms`` is the longest piece of work on the loop."""

    number: int
    result: Result
    actor: str
    at: float
    digest: str
    lines: tuple[str, ...]
    slice_ms: float = 0.0


@dataclass
class Books:
    """The running book, the newest attempt's end, and what an attempt is doing now ("" none is under way).

    ``followers`` are called on the loop's thread with each new book once every device is decided under it.
    """

    current: RunningBook
    last: Ended | None = None
    doing: str = ""
    stuck: str = ""
    number: int = 0
    ended: Counter[Result] = field(default_factory=Counter)
    followers: list[Callable[[RunningBook], None]] = field(default_factory=list)

    @property
    def refusal(self) -> Ended | None:
        """The newest attempt, when it did not succeed."""
        return self.last if self.last is not None and self.last.result in ("refused", "failed") else None

    def end(self, attempt: Ended) -> None:
        """Remember what came of an attempt."""
        self.last = attempt
        self.ended[attempt.result] += 1

    def take(self, running: RunningBook) -> None:
        """Another book runs from here on."""
        self.current = running
        for follow in self.followers:
            follow(running)
