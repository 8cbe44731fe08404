"""What a person sees of the story: one aligned line per event, colours only on a terminal.

What must not live here: checks, waiting, or anything that decides what is shown.
"""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from time import monotonic
from typing import TextIO

_COLOURS = {
    "trusted": "\x1b[32m",
    "suspect": "\x1b[33m",
    "lapsed": "\x1b[33m",
    "unknown": "\x1b[2m",
    "distrusted": "\x1b[31m",
    "FAILED": "\x1b[31m",
}
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_WIDTHS = (8, 10, 12, 15, 18)
_TITLES = ("time", "device", "standing", "reason", "verdict→verified")
_WRAP = 96


@dataclass
class Screen:
    """Writes to ``out``. Times are shown in seconds since ``start`` (``time.monotonic()``)."""

    out: TextIO
    start: float

    def __post_init__(self) -> None:
        self._colour = self.out.isatty() and "NO_COLOR" not in os.environ
        encoding = self.out.encoding or "ascii"
        self._arrow = "→" if _can_encode(encoding, "→") else "->"

    def say(self, text: str = "") -> None:
        """A line of prose."""
        print(text, file=self.out, flush=True)

    def note(self, text: str) -> None:
        """A dimmed, wrapped remark."""
        for line in textwrap.wrap(text, _WRAP, initial_indent="  ", subsequent_indent="  "):
            self.say(self._paint(line, _DIM))

    def titles(self) -> None:
        """The heads of the columns."""
        cells = (title.replace("→", self._arrow) for title in _TITLES)
        self.say(self._paint(self._row(*cells, "what happened"), _BOLD))

    def event(self, device: str, standing: str, reason: str, verified_ms: float | None, what: str) -> None:
        """One line of the story. ``verified_ms`` None: nothing had to be enforced for it."""
        taken = "-" if verified_ms is None else f"{verified_ms:.1f} ms"
        row = self._row(f"{monotonic() - self.start:.1f} s", device, standing, reason, taken, what)
        self.say(row.replace(standing, self._paint(standing, _COLOURS.get(standing, "")), 1))

    def failed(self, step: str, instead: str) -> None:
        """A step that did not happen."""
        self.say(f"{self._paint('FAILED', _COLOURS['FAILED'])} {step}")
        self.say(f"       instead: {instead}")

    def _row(self, *cells: str) -> str:
        fixed = (cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False))
        return f"{''.join(fixed)}{cells[-1]}"

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour and colour else text


def _can_encode(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
