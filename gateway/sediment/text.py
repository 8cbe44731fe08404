"""Hostile bytes as text that is safe to print, log and store. Nothing is interpreted here."""

from __future__ import annotations

TEXT_LIMIT = 64
"""Characters of a peer's own text that a fact may carry: those of the longest device id."""


def printable(raw: bytes) -> str:
    r"""Hostile bytes as at most 64 characters of printable ASCII; everything else, ``\`` included, as ``\xNN``."""
    text = raw[:TEXT_LIMIT].decode("latin-1")
    if not (text.isascii() and text.isprintable()) or "\\" in text:
        text = "".join(c if " " <= c <= "~" and c != "\\" else f"\\x{ord(c):02x}" for c in text)
    if len(raw) > TEXT_LIMIT or len(text) > TEXT_LIMIT:
        return text[: TEXT_LIMIT - 3] + "..."
    return text
