"""The log: facts as structured lines for whoever reads the service's standard error.

Standings that changed and notices are told; what merely extends a deadline is not. Lines are limited per second,
so that a storm of verdicts costs a counter and not a disk: what was left out is said in the next line.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TextIO

import structlog

from gateway.console.text import clean
from gateway.control.ports import Answered, Clock, Fact, Notice, Step
from gateway.core.model import Applied, Effect, Transition

LINES_PER_SECOND = 20
"""Enough to follow a site by eye; 20 lines of 200 bytes are 350 MB in a day at the very worst."""

CLAIMED_MOST = 64
"""Characters shown of a device id that a refused message claims: those of the longest id there is."""

_FAILED = Applied.FAILED
_TOLD = frozenset({Effect.RAISED, Effect.LOWERED, Effect.REFUSED})


class PatientFile(io.TextIOBase):
    """A text file whose failing writes are counted and otherwise forgotten.

    Where the log goes may fill up or be closed by whoever reads it; that must not end the service.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.lost = 0

    def write(self, text: str) -> int:
        """Write, or count what could not be written."""
        try:
            return self._file.write(text)
        except OSError:
            self.lost += 1
            return len(text)

    def flush(self) -> None:
        """Flush, or count what could not be flushed."""
        try:
            self._file.flush()
        except OSError:
            self.lost += 1


class Log:
    """Implements the ``Observer`` port."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._log = structlog.get_logger("ragate").bind()  # made once: as it is, the library makes one a line
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def stepped(self, steps: Sequence[Step]) -> None:
        """Write a line for each standing that changed, while there is room."""
        for transition, _, _ in steps:
            if transition.effect in _TOLD:
                self._transition(transition)

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        """Write a line for each failure, while there is room."""
        for _, fact in outcomes:
            if fact.state is _FAILED and self._room(self._clock.now().wall):
                self._log.error(
                    "not enforced", device=fact.device, target=fact.target, backend=fact.backend, detail=fact.detail
                )

    def observe(self, fact: Fact) -> None:
        """Write a line, if there is room for it."""
        if isinstance(fact, Notice):
            if self._room(fact.at):
                self._log.warning("notice", kind=fact.kind, subject=fact.subject, detail=fact.detail)
        elif self._room(fact.at):
            # Whoever sent it wrote the id: it is a claim, and must not reach a terminal as it is.
            claimed = {"claimed": clean(fact.device[:CLAIMED_MOST])} if fact.device else {}
            self._log.warning(
                "refused",
                refusal=fact.refusal.value,
                source=fact.source,
                peer=fact.peer,
                detail=fact.detail,
                **claimed,
            )

    def _transition(self, fact: Transition) -> None:
        if self._room(fact.event.at):
            self._log.info(
                "standing",
                device=fact.device,
                source=fact.source,
                on=fact.event.kind.value,
                before=fact.before.standing.label,
                after=fact.after.standing.label,
                effect=fact.effect.value,
                why=fact.why,
            )

    def _room(self, at: float) -> bool:
        """Whether the second of ``at`` (UNIX seconds, the fact's own) has room for a line, which is then taken."""
        second = int(at)
        if second != self._second:
            self._second, self._lines = second, 0
            if self._left_out:
                self._log.warning("lines left out", count=self._left_out)
                self._left_out = 0
        if self._lines >= LINES_PER_SECOND:
            self._left_out += 1
            return False
        self._lines += 1
        return True
