"""A role's small control: one line of JSON asks, one line of JSON answers, over a Unix socket of its own.

What lives here: both ends of that socket. What must not: what is asked for.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

LINE_BYTES = 4096
"""The longest question."""

ANSWER_BYTES = 1 << 20
"""The longest answer that is read: a site of a few devices needs a thousandth of it."""

ASK_SECONDS = 10.0
"""The longest that a question and its answer may take."""

ERROR = "error"
"""The key of an answer that says only why there is none; no role answers with it."""

Answer = Callable[[Sequence[str]], Mapping[str, Any]]
"""Words in, a document out. Raises ``ValueError`` for words that it does not know."""


class InquiryError(Exception):
    """The role does not answer, or refuses; the text says why."""


@asynccontextmanager
async def answering(path: Path, answer: Answer) -> AsyncIterator[None]:
    """Answer questions at ``path`` for as long as this lasts; whoever may write to the socket may ask."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                said = _said(await reader.readline(), answer)
                writer.write(json.dumps(said).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # whoever asked has gone, is silent, or sends without end
        finally:
            writer.close()

    _remove(path)  # left by a predecessor that was killed
    server = await asyncio.start_unix_server(serve, path, limit=LINE_BYTES)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _said(line: bytes, answer: Answer) -> Mapping[str, Any]:
    try:
        words = json.loads(line)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            msg = "a question is a list of words"
            raise ValueError(msg)
        return answer(words)
    except ValueError as error:
        return {ERROR: str(error)}


def ask(path: Path, words: Sequence[str]) -> Mapping[str, Any]:
    """Ask the role at ``path``. Raises ``InquiryError``."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ASK_SECONDS)
            connection.connect(str(path))
            connection.sendall(json.dumps(list(words)).encode() + b"\n")
            with connection.makefile("rb") as reading:
                said = json.loads(reading.readline(ANSWER_BYTES))
    except (OSError, ValueError) as error:
        msg = f"no answer at {path}: {error}"
        raise InquiryError(msg) from error
    if not isinstance(said, dict) or ERROR in said:
        raise InquiryError(str(said[ERROR] if isinstance(said, dict) else said))
    return said
