"""Reloading in the service's own process: the trial's process, refusals that only a running service knows, bugs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from typing import Any

import pytest
import yaml

from gateway.app import trial as trying
from gateway.app.parts import restart
from gateway.app.reload import SIGNAL, Busy, Reloader
from gateway.app.trial import Trial, forget
from gateway.config import load
from gateway.config.book_links import links_of
from gateway.config.trial import Ground, try_book
from gateway.control.running import RunningBook
from gateway.core.errors import BackendError, ConfigError, JournalError
from gateway.core.model import DENY, DeviceId
from gateway.core.policy import compile_book
from gateway.enforce.relay import RelayBackend
from gateway.journal import SqliteJournal
from gateway.sediment.wire import Reason
from tests.app.test_serve import SERVICE, Run, collector, gate, running
from tests.e2e.installed import Installed

__all__ = ["collector", "gate"]

BOOK: dict[str, Any] = {"services": [SERVICE], "node_default": "admitted", "suspect": "deny"}


def give(site: Installed, **more: Any) -> None:
    site.write("book.yaml", {**BOOK, **more})


def ground(site: Installed) -> Ground:
    config = load(site.config)
    return Ground(
        config.book_path, compile_book(config.book, config.devices), links_of(config), "gateway", ("feed",)
    )


def reloader(run: Run) -> Reloader:
    return run.service.parts.reloader


async def reloaded(run: Run, actor: str = "unix:alice") -> dict[str, Any]:
    """One attempt, to its end."""
    number = reloader(run).ask(actor, "a test")
    await run.until(lambda: (last := reloader(run).view()["last"]) is not None and last["number"] >= number)
    return dict(reloader(run).view()["last"])


# --- the trial's process ------------------------------------------------------------------------------------------


def test_a_book_comes_back_whole_and_compiled_for_the_running_devices(gate: Installed) -> None:
    give(gate, devices={"cam-1": "probation", "cam-2": {"standings": {"trusted": "deny"}, "max_age": "5m"}})
    config = load(gate.config)
    tried = Trial(ground(gate), config.devices).run()
    assert tried.book == config.book
    assert tried.digest == config.digest
    assert {device: made[0] for device, made in tried.book.compiled.items()} == {d.id: d for d in config.devices}
    assert all(tried.book.compiled[each.id][0] is each for each in config.devices)
    forget(tried.book)
    assert tried.book.compiled == {}


def test_what_the_child_refuses_is_told_with_its_place(gate: Installed) -> None:
    made, devices = ground(gate), load(gate.config).devices
    give(gate, node_defalt="deny")
    with pytest.raises(
        ConfigError, match=r"book\.yaml:\d+:1: 'node_defalt' is not known in the file; did you mean"
    ):
        Trial(made, devices).run()


def test_the_devices_are_those_that_run_whatever_the_inventory_says_now(gate: Installed) -> None:
    made, devices = ground(gate), load(gate.config).devices
    gate.write("devices.yaml", {"devices": []})
    give(gate, devices={"cam-1": "deny"})
    assert set(Trial(made, devices).run().book.compiled) == {device.id for device in devices}


def test_a_child_that_dies_is_a_refusal(gate: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    made, devices = ground(gate), load(gate.config).devices
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match="the trial of the book ended early"):
        Trial(made, devices).run()
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    with pytest.raises(ConfigError, match=r"ended early \(not started\)"):
        Trial(made, devices).run()


def test_a_trial_that_takes_too_long_is_given_up(gate: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    made, devices = ground(gate), load(gate.config).devices
    monkeypatch.setattr(trying, "SECONDS", 0.05)
    with pytest.raises(ConfigError, match="was given up after"):
        Trial(made, devices).run()


def test_a_killed_trial_ends_and_leaves_no_process(gate: Installed) -> None:
    made, devices = ground(gate), load(gate.config).devices
    trial = Trial(made, devices)
    errors: list[ConfigError] = []

    def run() -> None:
        try:
            trial.run()
        except ConfigError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while trial._child is None:
        pass
    trial.kill()
    thread.join(60)
    assert not thread.is_alive()
    assert errors
    assert trial._child.returncode is not None


# --- in the service -----------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial in this process: its own is tested above, and costs a second of start each time."""

    def run(self: Trial) -> trying.Tried:
        fit = try_book(self._ground, self._devices)
        return trying.Tried(compile_book(fit.book, self._devices), fit.library, fit.digest, fit.warnings)

    monkeypatch.setattr(Trial, "run", run)


async def test_taken_with_its_real_process_and_told_to_those_who_follow(gate: Installed) -> None:
    async with running(gate) as run:
        await run.ready()
        await asyncio.to_thread(gate.tell, "cam-1", Reason.PASS)
        await run.until(lambda: run.standing("cam-1") == "trusted")
        heard: list[RunningBook] = []
        run.service.parts.books.followers.append(heard.append)
        before = run.service.parts.books.current
        give(gate, devices={"cam-1": "deny"})
        last = await reloaded(run)
        assert (last["result"], last["actor"]) == ("taken", "unix:alice")
        assert "1 devices cut" in last["lines"][0]
        assert heard == [run.service.parts.books.current]
        assert heard[0].digest == last["digest"] != before.digest
        assert heard[0].loaded_at > before.loaded_at
        assert run.service.parts.devices.book is heard[0].book
        await run.until(lambda: before.book.compiled == {})  # the old rulings are let go
        view = run.service.parts.devices.view(DeviceId("cam-1"))
        assert view is not None
        assert view.decision.profile == DENY


@pytest.mark.usefixtures("quick")
async def test_a_relayed_service_that_moves_needs_a_restart_and_says_so(gate: Installed) -> None:
    async with running(gate) as run:
        await run.ready()
        before = run.service.parts.books.current
        give(gate, services=[SERVICE | {"port": 10}])
        last = await reloaded(run)
        assert last["result"] == "refused"
        assert "the relay listens for feed" in last["lines"][0]
        assert "restart the service" in last["lines"][0]
        assert run.service.parts.books.current is before
        health = reloader(run).health()
        assert health.ready
        assert "the newest was refused" in health.detail
        give(gate)
        assert (await reloaded(run))["result"] == "unchanged"
        assert "refused" not in reloader(run).health().detail


@pytest.mark.usefixtures("quick")
async def test_without_a_journal_no_book_is_taken(gate: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(gate) as run:
        await run.ready()
        monkeypatch.setattr(SqliteJournal, "writable", False)
        give(gate, node_default="deny")
        last = await reloaded(run)
        assert last["result"] == "refused"
        assert "the journal cannot be written" in last["lines"][0]


@pytest.mark.usefixtures("quick")
async def test_an_act_that_does_not_become_durable_is_refused(
    gate: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(gate) as run:
        await run.ready()
        original = SqliteJournal.record

        def failing(self: SqliteJournal, entries: Any, done: Any = None) -> Any:
            if done is not None:
                done(JournalError("disk is full"))
                done = None
            return original(self, entries, done)

        monkeypatch.setattr(SqliteJournal, "record", failing)
        give(gate, node_default="deny")
        assert (await reloaded(run))["lines"] == ["disk is full"]


@pytest.mark.usefixtures("quick")
async def test_a_gate_that_cannot_be_made_ready_is_told_and_nothing_changes(
    gate: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(gate) as run:
        await run.ready()

        async def refuse(*_: object) -> None:
            raise BackendError("relay", "not now", transient=True)

        monkeypatch.setattr(RelayBackend, "rewrite", refuse)
        before = run.service.parts.devices.book
        give(gate, node_default="deny")
        last = await reloaded(run)
        assert (last["result"], last["lines"]) == ("failed", ["the path gate could not be made ready: not now"])
        assert run.service.parts.devices.book is before


@pytest.mark.usefixtures("quick")
async def test_one_attempt_at_a_time_and_a_signal_is_never_lost(
    gate: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(gate) as run:
        await run.ready()
        go, original = threading.Event(), Trial.run

        def held(self: Trial) -> trying.Tried:
            go.wait(60)
            return original(self)

        monkeypatch.setattr(Trial, "run", held)
        assert reloader(run).ask("unix:alice", "first") == 1
        with pytest.raises(Busy, match="reload 1 is under way"):
            reloader(run).ask("unix:bob", "second")
        await run.until(lambda: "process of its own" in reloader(run).view()["doing"])
        os.kill(os.getpid(), signal.SIGHUP)
        await run.until(lambda: reloader(run)._hangup)
        go.set()
        await run.until(lambda: reloader(run).view()["reloads"]["unchanged"] == 2)
        assert reloader(run).view()["last"]["actor"] == SIGNAL


async def test_a_stop_during_the_trial_ends_in_order(gate: Installed) -> None:
    async with running(gate) as run:
        await run.ready()
        (gate.folder / "book.yaml").unlink()
        os.mkfifo(gate.folder / "book.yaml")  # nobody writes into it: the trial does not end by itself
        reloader(run).ask("unix:alice", "about to stop")
        await run.until(lambda: "process of its own" in reloader(run).view()["doing"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run.ends() == 0


# --- where the line is --------------------------------------------------------------------------------------------


def test_kubearmor_keeps_the_ports_that_it_was_started_with(gate: Installed) -> None:
    settings = yaml.safe_load(gate.config.read_text())
    settings["targets"][0]["kubearmor"] = {"address": "127.0.0.1:32767"}
    gate.write("ragate.yaml", settings)
    config = load(gate.config)
    give(gate, always_allowed=["10.9.0.0/24"])
    (why,) = restart.needs_restart(config, config.book, load(gate.config).book)
    assert why.startswith("KubeArmor's network policy is made from services, corridor and always_allowed")
    give(gate, devices={"cam-1": "deny"})
    assert restart.needs_restart(config, config.book, load(gate.config).book) == []
