"""How tasks of a service end: by a signal, by a declared error, or by a bug."""

from __future__ import annotations

import asyncio

import pytest

from gateway.app.tasks import declared, ended, first
from gateway.core.errors import BackendError, ConfigError

REFUSED = ConfigError("console.listen", "is taken", "choose another port")
STUCK = BackendError("relay", "a thread did not end", transient=False)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (REFUSED, REFUSED),
        (ExceptionGroup("parts", [STUCK]), STUCK),
        (ExceptionGroup("parts", [ExceptionGroup("inner", [REFUSED]), STUCK]), REFUSED),
        (ExceptionGroup("parts", [STUCK, ValueError("a bug")]), None),
        (ValueError("a bug"), None),
        (asyncio.CancelledError(), None),
    ],
)
def test_only_declared_errors_are_told_as_such(error: BaseException, found: Exception | None) -> None:
    assert declared(error) is found


async def test_a_part_that_ends_unasked_ends_the_waiting() -> None:
    never, part = asyncio.Event(), asyncio.create_task(asyncio.sleep(0))
    async with asyncio.timeout(60):
        await first(never.wait(), part)
    assert part.done()


async def test_the_signal_ends_the_waiting_and_no_task() -> None:
    stop, part = asyncio.Event(), asyncio.create_task(asyncio.Event().wait())
    stop.set()
    async with asyncio.timeout(60):
        await first(stop.wait(), part)
    assert not part.done()
    await ended(part)
    assert part.cancelled()


async def test_a_task_is_waited_for_until_it_has_put_its_things_in_order() -> None:
    tidied = False

    async def work() -> None:
        nonlocal tidied
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            tidied = True

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await ended(task)
    assert tidied
