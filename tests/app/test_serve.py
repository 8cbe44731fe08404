"""Serve: the order in which parts start and stop, and what every kind of trouble does to the process.

The parts are the real ones (relay on loopback, SQLite on disk); what is recorded is when each is asked to begin
and to end.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.app.serve import BUG, Service
from gateway.config import Config, load
from gateway.console.api import Console
from gateway.console.operator import OperatorWindow
from gateway.control.clockwork import Clockwork
from gateway.control.reconcile import Reconciler
from gateway.core.errors import BackendError, ConfigError, JournalError
from gateway.enforce.relay import RelayBackend
from gateway.intake.sediment import SedimentDoor, forward
from gateway.journal import SqliteHistory, SqliteJournal
from gateway.journal.schema import open_journal
from gateway.journal.store import Store
from gateway.sediment.wire import Reason
from gateway.watch.resources import ResourceWatch
from tests.e2e.installed import Installed, written
from tests.ports import free_place

SERVICE = {"name": "feed", "address": "127.0.0.1", "port": 9, "protocol": "tcp", "path": "relayed"}


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The service settles the garbage collector for a process of its own; this one goes on."""
    thresholds = gc.get_threshold()
    yield
    gc.enable()
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def gate(tmp_path: Path) -> Installed:
    return Installed(
        tmp_path,
        devices={"cam-1": ("127.0.77.11",), "cam-2": ("127.0.77.12",)},
        services=[SERVICE],
        target={"path_gate": "relay", "relay": [{"service": "feed", "listen": written(free_place())}]},
        door=free_place(),
        console=free_place(),
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was begun and ended, in order."""
    told: list[str] = []

    def watch(owner: type, method: str, begin: str, end: str = "") -> None:
        original = getattr(owner, method)
        if asyncio.iscoroutinefunction(original):

            async def waited(self: Any, *arguments: Any) -> Any:
                told.extend([begin] * bool(begin))
                try:
                    return await original(self, *arguments)
                finally:
                    told.extend([end] * bool(end))

            monkeypatch.setattr(owner, method, waited)
            return

        def called(self: Any, *arguments: Any) -> Any:
            told.append(begin)
            return original(self, *arguments)

        monkeypatch.setattr(owner, method, called)

    watch(SqliteJournal, "load", "journal loaded")
    watch(SqliteJournal, "close", "", "journal closed")
    watch(RelayBackend, "start", "gate started")
    watch(RelayBackend, "stop", "", "gate stopped")
    watch(RelayBackend, "observe", "gate observed")
    watch(Reconciler, "run", "lanes run", "lanes ended")
    watch(Clockwork, "run", "clockwork runs", "clockwork ended")
    watch(SedimentDoor, "run", "door opens", "door shut")
    watch(Console, "start", "console started")
    watch(Console, "stop", "", "console stopped")
    watch(OperatorWindow, "start", "operator started")
    watch(OperatorWindow, "stop", "", "operator stopped")
    return told


class Run:
    """One service on this loop."""

    def __init__(self, gate: Installed, config: Config) -> None:
        self.gate = gate
        self.service = Service(config, None)
        self.task = asyncio.create_task(self.service.run())

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not what() and not self.task.done():
                await asyncio.sleep(0.005)
        if self.task.done() and not what():
            self.task.result()

    async def ready(self) -> None:
        await self.until(lambda: self.service.ready)

    def standing(self, name: str) -> str:
        devices = self.service.parts.devices
        return next(v.decision.standing.label for v in devices.views() if v.device.id == name)

    async def ends(self) -> int:
        async with asyncio.timeout(60):
            return await self.task


@asynccontextmanager
async def running(gate: Installed) -> AsyncIterator[Run]:
    run = Run(gate, load(gate.config))
    try:
        yield run
    finally:
        run.task.cancel()
        await asyncio.wait((run.task,), timeout=60)


def terminate() -> None:
    """The loop has a handler for it from the moment the windows open."""
    os.kill(os.getpid(), signal.SIGTERM)


def marked_clean(gate: Installed) -> bool:
    connection = sqlite3.connect(gate.journal)
    try:
        return bool(connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()[0])
    finally:
        connection.close()


async def rows_of(gate: Installed, device: str) -> list[dict[str, Any]]:
    history = SqliteHistory(gate.journal)
    try:
        return [dict(row) for row in await history.verdicts(load(gate.config).devices[0].id, 10)]
    finally:
        history.close()


# --- order ------------------------------------------------------------


async def test_memory_hands_standings_windows_clockwork_door_and_back(gate: Installed, calls: list[str]) -> None:
    async with running(gate) as run:
        await run.ready()
        begun = list(calls)
        terminate()
        assert await run.ends() == 0
    assert begun[:3] == ["journal loaded", "gate started", "gate observed"]
    assert sorted(begun[3:5]) == ["console started", "operator started"]
    ended = calls[len(begun) :]
    started = [call for call in ended if call in ("lanes run", "clockwork runs", "door opens")]
    assert started in ([], ["lanes run", "clockwork runs", "door opens"])
    assert [call for call in ended if call not in started] == [
        "door shut",
        "clockwork ended",
        "lanes ended",
        "operator stopped",
        "console stopped",
        "gate stopped",
        "journal closed",
    ]
    assert marked_clean(gate)


async def test_what_was_accepted_before_the_stop_is_judged_and_kept(
    gate: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow: the commit of the last verdict ends after the door, the clockwork and the lanes."""
    slow_commits(monkeypatch)
    async with running(gate) as run:
        await run.ready()
        await asyncio.to_thread(gate.tell, "cam-1", Reason.FAILED_ATTEST)
        await run.until(lambda: run.standing("cam-1") == "distrusted")
        terminate()
        assert await run.ends() == 0, "what becomes durable during the stop is no bug"
    assert [row["event"] for row in await rows_of(gate, "cam-1")] == ["failed"]
    assert marked_clean(gate)


async def test_a_pass_accepted_before_the_stop_is_admitted_or_forgotten_never_an_error(
    gate: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_commits(monkeypatch)
    async with running(gate) as run:
        await run.ready()
        await asyncio.to_thread(gate.tell, "cam-1", Reason.PASS)
        await run.until(lambda: run.standing("cam-1") == "trusted")
        terminate()
        assert await run.ends() == 0
    rows = await rows_of(gate, "cam-1")
    assert [row["event"] for row in rows] == ["passed"]
    assert (rows[0]["outcome"] or {}).get("state") == "verified", "the stop waited for what it had accepted"


def slow_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Store.commit

    def slow(self: Store, *arguments: Any, **options: Any) -> None:
        time.sleep(0.2)
        commit(self, *arguments, **options)

    monkeypatch.setattr(Store, "commit", slow)


async def test_a_stop_on_a_full_disk_is_a_declared_error(gate: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, *arguments: Any, **options: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with running(gate) as run:
        await run.ready()
        monkeypatch.setattr(Store, "commit", full)
        await asyncio.to_thread(gate.tell, "cam-1", Reason.FAILED_ATTEST)
        await run.until(lambda: run.standing("cam-1") == "distrusted")
        await asyncio.to_thread(gate.tell, "cam-2", Reason.PASS)
        terminate()
        with pytest.raises(JournalError, match="disk is full"):
            await run.ends()
    assert not marked_clean(gate)


# --- bugs ------------------------------------------------------------


async def test_a_bug_in_a_callback_stops_the_process_in_order(gate: Installed, calls: list[str]) -> None:
    def bug() -> None:
        raise ZeroDivisionError("a bug")

    async with running(gate) as run:
        await run.ready()
        asyncio.get_running_loop().call_soon(bug)
        assert await run.ends() == BUG == 70
    assert calls[-2:] == ["gate stopped", "journal closed"]
    assert "door shut" in calls
    assert marked_clean(gate)


@pytest.mark.parametrize("part", [ResourceWatch, Clockwork, Reconciler, SedimentDoor])
async def test_a_bug_in_a_part_stops_the_process_in_order(
    gate: Installed, calls: list[str], part: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: object) -> None:
        await asyncio.sleep(0.05)
        raise ZeroDivisionError("a bug")

    if part is SedimentDoor:
        monkeypatch.setattr(SedimentDoor, "_accept", lambda *_: 1 / 0)
    else:
        monkeypatch.setattr(part, "run", broken)
    async with running(gate) as run:
        await run.ready()
        if part is SedimentDoor:
            with suppress(ConnectionError):  # the door may be gone before everything was sent
                await asyncio.to_thread(gate.tell, "cam-1", Reason.PASS)
        assert await run.ends() == BUG
    assert calls[-2:] == ["gate stopped", "journal closed"]


# --- what keeps it from starting ------------------------------------------------------------


async def test_a_taken_door_is_said_before_anything_is_enforced(gate: Installed, calls: list[str]) -> None:
    with socket.create_server(gate.door):
        async with running(gate) as run:
            with pytest.raises(ConfigError, match="cannot listen here"):
                await run.ends()
    assert calls == ["journal loaded", "gate stopped", "journal closed"]


async def test_a_taken_console_is_said_before_anything_is_enforced(gate: Installed, calls: list[str]) -> None:
    with socket.create_server(gate.console):
        async with running(gate) as run:
            with pytest.raises(ConfigError, match="cannot listen on"):
                await run.ends()
    assert calls == ["journal loaded", "gate stopped", "journal closed"]
    assert not gate.socket.exists()


async def test_a_gate_that_cannot_start_leaves_the_journal_clean(gate: Installed, calls: list[str]) -> None:
    relay = load(gate.config).target.relay[0].listen
    with socket.create_server((relay.host, relay.port)):
        async with running(gate) as run:
            with pytest.raises(ConfigError, match=f"{relay}: the relay cannot listen here for feed: "):
                await run.ends()
    assert calls[-1] == "journal closed"
    assert marked_clean(gate)


async def test_a_journal_in_use_stops_the_start_before_the_gate(gate: Installed, calls: list[str]) -> None:
    other = open_journal(gate.journal)
    try:
        async with running(gate) as run:
            with pytest.raises(JournalError, match="another process is using"):
                await run.ends()
    finally:
        other.connection.close()
        os.close(other.lock)
    assert calls == ["journal loaded"]


async def test_a_gate_that_does_not_stop_still_leaves_the_journal_closed(
    gate: Installed, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(self: RelayBackend) -> None:
        raise BackendError("relay", "a thread did not end", transient=False)

    stop = RelayBackend.stop
    monkeypatch.setattr(RelayBackend, "stop", stuck)
    async with running(gate) as run:
        await run.ready()
        terminate()
        with pytest.raises(BackendError, match="did not end"):
            await run.ends()
        await stop(run.service.parts.gate.backend)  # type: ignore[arg-type]
    assert "journal closed" in calls
    assert marked_clean(gate)


# --- passing on -------------------------------------------------------


async def test_a_relying_party_that_is_away_is_shown_and_takes_nothing_out_of_service(
    gate: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ATTEMPTS", 1)
    there = written(free_place())
    gate.settings["doors"]["sediment"]["forward_to"] = there
    gate.write("ragate.yaml", gate.settings)
    async with running(gate) as run:
        await run.ready()
        await asyncio.to_thread(gate.tell, "cam-1", Reason.PASS)
        await run.until(lambda: run.standing("cam-1") == "trusted")
        forwarder = run.service.parts.door.forwarder
        assert forwarder is not None
        await run.until(lambda: forwarder.failed == 1)
        health = {part.part: part for part in run.service.health()}
        exposed = (await run.service.parts.metrics.exposition()).decode()
        terminate()
        assert await run.ends() == 0
    assert all(part.ready for part in health.values())
    assert health["forwarding"].detail == (
        f"{there} takes no alerts: Connection refused; 0 waiting, 1 given up, 0 dropped"
    )
    assert 'ragate_forwarded_total{result="failed"} 1.0' in exposed
    assert 'ragate_notices_total{kind="backlog"} 1.0' in exposed
