"""A process that journals until it is killed or its disk is full; run by the tests, never imported by them.

child.py crash PATH            prints "DURABLE seq device-number pass-number" lines, until killed
child.py full PATH REMEDY      journals until writing fails, makes room, and tells what it saw; REMEDY is a file
                                   to delete, or "limit" for a limit on the file's size that is set and lifted
"""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import sys
from pathlib import Path

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.journal import SqliteJournal
from tests.fakes.clock import ManualClock
from tests.journal import samples
from tests.journal.conftest import durable, until

DEVICES = 40


def opened(path: Path) -> SqliteJournal:
    journal = SqliteJournal(path, loop=asyncio.get_running_loop(), clock=ManualClock(), boot_id="child")
    journal.load()
    return journal


async def crash(path: Path) -> None:
    journal = opened(path)
    loop = asyncio.get_running_loop()
    turns = itertools.count(1)

    def send() -> None:
        turn = next(turns)
        entry = samples.passed(turn, samples.device(turn % DEVICES))
        (seq,) = journal.record([entry], lambda error: told(error, turn))
        numbers[turn] = seq

    def told(error: JournalError | None, turn: int) -> None:
        if error is None:
            os.write(1, f"DURABLE {numbers.pop(turn)} {turn % DEVICES} {turn}\n".encode())
        loop.call_soon(send)

    numbers: dict[int, int] = {}
    for _ in range(30):
        send()
    await asyncio.Event().wait()


async def fill(journal: SqliteJournal) -> tuple[list[int], JournalError]:
    """Journal one row after the other until one cannot be written; its number is among those returned."""
    kept: list[int] = []
    for number in itertools.count(2):
        answer: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
        kept += journal.record([samples.failed(number, samples.device(number % DEVICES))], answer.set_result)
        error = await answer
        if error is not None:
            return kept, error
    raise AssertionError


async def full(path: Path, remedy: str) -> None:
    journal = opened(path)
    first = await durable(journal, samples.passed(1))
    if remedy == "limit":
        limit = path.with_name(f"{path.name}-wal").stat().st_size + 40_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    kept, answer = await fill(journal)
    print("ERROR", answer)
    print("WRITABLE", journal.writable, "PENDING", journal.pending)
    late = Entry({"kind": "late", "device": "cam-1", "source": "verifier"}, samples.trusted(99))
    kept += journal.record([late])
    if remedy == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        Path(remedy).unlink()
    await until(lambda: journal.writable and journal.pending == 0)
    await durable(journal, samples.passed(100, samples.device(99)))
    rows = await journal.history.facts(0, 10_000)
    print("KEPT", {row["seq"] for row in rows} >= {*first, *kept}, "CHAIN", await journal.history.verify_chain())
    await journal.close()
    again = SqliteJournal(path, loop=asyncio.get_running_loop(), clock=ManualClock(), boot_id="child")
    loaded = again.load()
    print("CLEAN", loaded.clean, "LATE", loaded.records[samples.device(1), samples.SOURCE] == samples.trusted(99))
    await again.close()


if __name__ == "__main__":
    if sys.argv[1] == "crash":
        asyncio.run(crash(Path(sys.argv[2])))
    else:
        asyncio.run(full(Path(sys.argv[2]), sys.argv[3]))
