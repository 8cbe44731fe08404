"""Tasks of a service: which ended first, ending one in order, and by which declared error they ended.

What lives here: small steps around tasks. What must not: knowing what the tasks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from gateway.core.errors import RagateError


def declared(error: BaseException) -> RagateError | None:
    """The declared error that ended the parts, when no other did."""
    if isinstance(error, RagateError):
        return error
    if isinstance(error, BaseExceptionGroup) and error.split(RagateError)[1] is None:
        return declared(error.exceptions[0])
    return None


async def first(stopped: Awaitable[Any], *tasks: asyncio.Task[Any]) -> None:
    """Wait for the signal, or for a part that ended though nobody asked it to."""
    waiting = asyncio.ensure_future(stopped)
    await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has put its things in order; its own failure is the group's matter."""
    task.cancel()
    await asyncio.wait((task,))
