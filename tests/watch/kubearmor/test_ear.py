"""The ear at a daemon with KubeArmor's streams: what it hears, what it loses, and how it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from gateway.core.errors import BackendError
from gateway.core.model import Instant
from gateway.enforce.kubearmor import connect
from gateway.kubearmor.alerts import RuntimeAlert
from gateway.kubearmor.pb.events_pb2 import Alert, Log
from gateway.watch.kubearmor import MESSAGE_BYTES, STREAMS, Ear, EarSettings, ear
from tests.fakes.clock import ManualClock
from tests.fakes.kubearmor import FakeKubeArmor
from tests.netns import KernelClock
from tests.patience import PATIENCE

QUICK: dict[str, Any] = {"first_pause": 0.01, "longest_pause": 0.1}
SPEC = {"severity": 9, "ingress": [{"severity": 8, "action": "Block"}]}


@pytest.fixture
async def daemon() -> AsyncIterator[FakeKubeArmor]:
    fake = FakeKubeArmor()
    yield fake
    await fake.stop()


class Heard:
    """An ear and what it has told."""

    def __init__(self, daemon: FakeKubeArmor, clock: Any = None, **changes: Any) -> None:
        self.alerts: list[tuple[RuntimeAlert, Instant]] = []
        self.lost: list[str] = []
        settings = EarSettings(**{**QUICK, **changes})
        self.connects = 0
        self.refuse = ""
        self.ear = Ear(settings, clock or KernelClock(), self._connect(daemon), self._hear, self.lost.append)

    def _connect(self, daemon: FakeKubeArmor) -> Callable[[], grpc.aio.Channel]:
        def made() -> grpc.aio.Channel:
            self.connects += 1
            if self.refuse:
                raise BackendError("kubearmor", self.refuse, transient=True)
            return connect(daemon.address, None, MESSAGE_BYTES)

        return made

    def _hear(self, alert: RuntimeAlert, at: Instant) -> None:
        self.alerts.append((alert, at))

    @property
    def what(self) -> list[str]:
        return [alert.what for alert, _ in self.alerts]


async def until(true: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(str(what()))


@asynccontextmanager
async def listening(heard: Heard) -> AsyncIterator[Heard]:
    task = asyncio.create_task(heard.ear.run())
    try:
        yield heard
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def taken(daemon: FakeKubeArmor, *methods: str) -> None:
    """Until the daemon has the streams: they cannot be seen from outside before their first message."""
    await until(lambda: all(daemon.feed.subscribers[method] for method in methods or daemon.feed.subscribers))


async def test_all_three_streams_are_heard(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    clock = ManualClock()
    async with listening(Heard(daemon, clock)) as heard:
        await taken(daemon)
        assert sorted(daemon.feed.requests) == [
            ("WatchAlerts", "all"),
            ("WatchLogs", "system"),
            ("WatchMessages", "all"),
        ]
        assert heard.ear.tally.up == set(STREAMS)
        daemon.feed.matching = "network"
        daemon.feed.packet("60-network-honey", SPEC, "10.77.1.11", port=2323)
        daemon.feed.say("WatchLogs", Log(HostName="edge", Operation="File", Result="Permission denied"))
        daemon.feed.say("WatchLogs", Log(HostName="edge", Operation="File", Result="Passed"))
        daemon.feed.message("ERROR", "Failed to apply network policies")
        await until(lambda: len(heard.alerts) == 3, lambda: heard.alerts)
        alerts = {alert.what: (alert, at) for alert, at in heard.alerts}
        assert set(alerts) == {"network", "denial", "daemon"}
        alert, at = alerts["network"]
        assert (str(alert.source), alert.severity, at) == ("10.77.1.11", 8, clock.now())
        await until(lambda: sum(heard.ear.tally.heard.values()) == 5)  # a DEBUG message comes with each packet
        assert heard.ear.state() == ("listening to alerts, logs, messages; heard 1 alerts, 2 logs, 2 messages")


async def test_an_alert_that_is_none_is_counted_and_the_stream_goes_on(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with listening(Heard(daemon)) as heard:
        await taken(daemon)
        daemon.feed.say("WatchAlerts", b"\xff\xff\xff")
        daemon.feed.say("WatchAlerts", Alert(Type="MatchedPolicy", Severity="many"))
        daemon.feed.packet("p", SPEC, "10.77.1.11", port=1)
        await until(lambda: heard.what == ["network"], lambda: heard.ear.state())
        assert heard.ear.tally.lost["malformed"] == 2
        assert "lost 2 malformed" in heard.ear.state()


async def test_a_loud_source_is_cut_short_and_counted_and_another_is_heard(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with listening(Heard(daemon, ManualClock(), per_source=5)) as heard:
        await taken(daemon)
        for port in range(1, 51):
            daemon.feed.packet("p", SPEC, "10.77.1.11", port=port)
        daemon.feed.packet("p", SPEC, "10.77.1.12", port=1)
        await until(lambda: heard.ear.tally.heard["alerts"] == 51)
        assert [str(alert.source) for alert, _ in heard.alerts] == [*["10.77.1.11"] * 5, "10.77.1.12"]
        assert heard.ear.tally.lost["source"] == 45


async def test_when_kubearmor_itself_stops_telling_that_is_a_loss(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with listening(Heard(daemon)) as heard:
        await taken(daemon)
        daemon.feed.say(
            "WatchAlerts",
            Alert(Type="SystemEvent", ContainerName="app", MaxAlertsPerSec=10, DroppingAlertsInterval=30),
        )
        await until(lambda: heard.what == ["throttled"])
        assert heard.ear.tally.lost["throttled"] == 1


async def test_a_second_s_worth_is_read_and_then_nothing_until_the_next(daemon: FakeKubeArmor) -> None:
    """What is more waits in the daemon's queue; beyond it the daemon drops in silence, and pauses tell of it."""
    await daemon.start()
    clock = ManualClock()
    async with listening(Heard(daemon, clock, most=10, per_source=10_000)) as heard:
        await taken(daemon)
        for port in range(1, 26):
            daemon.feed.packet("p", SPEC, "10.77.1.11", port=port)
        await until(lambda: heard.ear.tally.pauses["alerts"] >= 1)
        assert heard.ear.tally.heard["alerts"] == 10
        clock.advance(1.0)
        await until(lambda: heard.ear.tally.pauses["alerts"] == 2)
        assert heard.ear.tally.heard["alerts"] == 20
        clock.advance(1.0)
        await until(lambda: heard.ear.tally.heard["alerts"] == 25)


async def test_a_restart_is_told_and_the_streams_are_opened_anew(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with listening(Heard(daemon)) as heard:
        await taken(daemon)
        await daemon.die()
        await until(lambda: heard.lost != [])
        assert "KubeArmor's streams ended" in heard.lost[0]
        await until(lambda: "not listening" in heard.ear.state())
        assert heard.ear.tally.up == set()
        assert set(heard.ear.tally.breaks.values()) == {1}
        daemon.feed.requests.clear()
        await daemon.start()
        await taken(daemon)
        daemon.feed.packet("p", SPEC, "10.77.1.11", port=1)
        await until(lambda: heard.what == ["network"], lambda: heard.ear.state())
        assert len(heard.lost) == 1


async def test_a_stream_that_ends_alone_is_opened_again_and_is_no_restart(daemon: FakeKubeArmor) -> None:
    """A message beyond the limit ends its stream: whoever can make one must not take the others along."""
    await daemon.start()
    async with listening(Heard(daemon)) as heard:
        await taken(daemon)
        before = daemon.feed.subscribers["WatchAlerts"][0]
        daemon.feed.say("WatchLogs", Log(Resource="x" * (MESSAGE_BYTES + 1)))
        await until(lambda: heard.ear.tally.breaks["logs"] == 1)
        await until(lambda: daemon.feed.requests.count(("WatchLogs", "system")) == 2)
        await taken(daemon)
        daemon.feed.say("WatchLogs", Log(HostName="edge", Result="Permission denied"))
        await until(lambda: heard.what == ["denial"], lambda: heard.ear.state())
        assert daemon.feed.subscribers["WatchAlerts"] == [before]
        assert heard.lost == []


async def test_a_daemon_that_is_not_there_is_tried_again(daemon: FakeKubeArmor) -> None:
    async with listening(Heard(daemon)) as heard:
        await until(lambda: heard.connects > 2)
        await until(lambda: "not listening: UNAVAILABLE" in heard.ear.state(), heard.ear.state)
        assert heard.lost == []  # nothing that stood
        await daemon.start()
        await taken(daemon)


async def test_a_transport_that_cannot_be_made_is_shown_and_tried_again(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    heard = Heard(daemon)
    heard.refuse = "the client certificate cannot be read"
    async with listening(heard):
        await until(lambda: heard.connects > 2)
        assert heard.ear.state().startswith("not listening: the client certificate cannot be read")
        heard.refuse = ""
        await taken(daemon)


async def test_only_the_streams_that_are_wanted(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with listening(Heard(daemon, streams=("alerts",))) as heard:
        await taken(daemon, "WatchAlerts")
        assert daemon.feed.requests == [("WatchAlerts", "all")]
        assert heard.ear.tally.streams == ("alerts",)


async def test_a_slow_reader_loses_in_silence_and_the_fake_knows_it(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with listening(Heard(daemon, ManualClock(), most=1)):
        await taken(daemon)
        for number in range(2_500):
            daemon.feed.packet("p", SPEC, f"10.{number >> 8}.{number & 255}.1", port=1)
        assert daemon.feed.dropped > 0


async def test_pauses_between_attempts_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons that restart together are not met by every host at once."""
    pauses: list[float] = []

    async def slept(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", slept)
    for _ in range(40):
        await ear._rest(8.0)
    assert len(set(pauses)) > 20
    assert 4.0 <= min(pauses) < max(pauses) <= 8.0
