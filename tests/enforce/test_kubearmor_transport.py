"""How a daemon is reached: mutual TLS with the node's name, Unix sockets, streams apart from policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.certs.client import ClientFiles
from gateway.core.errors import BackendError, ConfigError
from gateway.enforce.kubearmor import KubeArmorSettings, connect
from gateway.kubearmor.pb.events_pb2 import Alert
from gateway.watch.kubearmor import MESSAGE_BYTES, Ear, EarSettings
from tests import posting
from tests.enforce.test_kubearmor import advisory, running, state, until
from tests.fakes.kubearmor import FakeKubeArmor
from tests.netns import KernelClock

#: KubeArmor's own certificate names the node's address and nothing else (interface 2).
NODE = "10.77.3.2"


@pytest.fixture
def files(tmp_path: Path) -> ClientFiles:
    authority = posting.Authority.make(tmp_path)
    authority.issue("daemon", server=NODE)
    authority.issue("client")
    return ClientFiles(tmp_path / "site-ca.pem", tmp_path / "client.pem", tmp_path / "client.key", NODE)


def credentials(files: ClientFiles) -> grpc.ServerCredentials:
    folder = files.authority.parent
    pair = ((folder / "daemon.key").read_bytes(), (folder / "daemon.pem").read_bytes())
    return grpc.ssl_server_credentials([pair], files.authority.read_bytes(), require_client_auth=True)


@asynccontextmanager
async def serving(**given: Any) -> AsyncIterator[FakeKubeArmor]:
    daemon = FakeKubeArmor(**given)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()


@asynccontextmanager
async def ear(settings: KubeArmorSettings) -> AsyncIterator[tuple[Ear, list[Any]]]:
    heard: list[Any] = []
    made = Ear(
        EarSettings(first_pause=0.01, longest_pause=0.1),
        KernelClock(),
        lambda: connect(settings.events, settings.tls, MESSAGE_BYTES),
        lambda alert, _at: heard.append(alert),
    )
    task = asyncio.create_task(made.run())
    try:
        yield made, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_policies_and_streams_over_mutual_tls_by_the_nodes_name(files: ClientFiles) -> None:
    async with serving(credentials=credentials(files)) as daemon:
        settings = KubeArmorSettings(address=daemon.address, health=daemon.health, tls=files)
        async with running(advisory(daemon, tls=files)) as hand, ear(settings) as (_, heard):
            await state(hand, "waiting", host="verified")
            await until(lambda: bool(daemon.feed.subscribers["WatchAlerts"]))
            daemon.feed.say("WatchAlerts", Alert(Type="MatchedPolicy", Operation="File"))
            await until(lambda: len(heard) == 1)


@pytest.mark.parametrize("wrong", ["name", "plaintext", "expired"])
async def test_tls_that_does_not_agree_sends_nothing_and_is_shown(files: ClientFiles, wrong: str) -> None:
    given: ClientFiles | None = files
    if wrong == "name":
        given = files._replace(name="")  # the address that is dialled is none of the certificate's
    elif wrong == "plaintext":
        given = None
    else:
        posting.Authority.make(files.authority.parent).issue("client", since=-7_200.0, until=-3_600.0)
    async with serving(credentials=credentials(files)) as daemon:
        settings = KubeArmorSettings(address=daemon.address, health=daemon.health, tls=given)
        async with running(advisory(daemon, tls=given)) as hand, ear(settings) as (listener, heard):
            await until(lambda: "probe: " in hand.state()["detail"])
            await until(lambda: "not listening: UNAVAILABLE" in listener.state())
            assert heard == []
        assert daemon.calls == []


async def test_renewed_files_are_taken_with_the_next_connection(files: ClientFiles) -> None:
    kept = files.key.read_bytes()
    async with serving(credentials=credentials(files)) as daemon:
        settings = KubeArmorSettings(address=daemon.address, health=daemon.health, tls=files)
        hand = advisory(daemon, tls=files)
        files.key.unlink()
        async with running(hand), ear(settings) as (listener, _):
            await until(lambda: "client.key: cannot be read" in hand.state()["detail"])
            await until(lambda: "client.key: cannot be read" in listener.state())
            files.key.write_bytes(kept)
            await state(hand, "waiting", host="verified")
            await until(lambda: bool(daemon.feed.subscribers["WatchAlerts"]))


async def test_management_on_a_unix_socket_apart_from_the_streams(tmp_path: Path) -> None:
    place = f"unix:{tmp_path}/management.sock"
    async with serving(management=place) as daemon:
        settings = KubeArmorSettings(address=place, logs=daemon.address, health=None)
        assert settings.events == daemon.address
        hand = advisory(daemon, address=place, logs=daemon.address, health=None)
        async with running(hand), ear(settings) as (_, heard):
            await state(hand, "waiting", host="verified")
            await until(lambda: bool(daemon.feed.subscribers["WatchAlerts"]))
            daemon.feed.say("WatchAlerts", Alert(Type="MatchedPolicy", Operation="File"))
            await until(lambda: len(heard) == 1)


def test_settings_that_cannot_be(files: ClientFiles) -> None:
    with pytest.raises(ConfigError, match=r"kubearmor\.logs: '10\.0\.0\.1:1' is not on this host"):
        KubeArmorSettings(logs="10.0.0.1:1")
    with pytest.raises(ConfigError, match="a Unix socket takes no TLS"):
        KubeArmorSettings(address="unix:/run/ka.sock", health=None, tls=files)
    with pytest.raises(ConfigError, match="cannot be read"):
        KubeArmorSettings(tls=files._replace(key=Path("/nowhere/at/all")))
    assert KubeArmorSettings(address="unix:/run/ka.sock", logs="127.0.0.1:32767", tls=files).tls is files


def test_a_connection_sends_no_pings_of_its_own(files: ClientFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one in five minutes, and the daemon ends it (too_many_pings); nor is a call sent twice."""
    asked: list[dict[str, object]] = []

    def channel(address: str, *credentials: object, options: list[tuple[str, object]]) -> None:
        asked.append(dict(options))

    monkeypatch.setattr(grpc.aio, "insecure_channel", channel)
    monkeypatch.setattr(grpc.aio, "secure_channel", channel)
    for tls in (None, files):
        connect("127.0.0.1:1", tls, 1)
    assert len(asked) == 2
    for options in asked:
        assert not [name for name in options if "keepalive" in name]
        assert options["grpc.enable_retries"] == 0


def test_files_that_cannot_be_read_now_are_no_bug(files: ClientFiles) -> None:
    with pytest.raises(BackendError, match="cannot be read") as caught:
        connect("127.0.0.1:1", files._replace(key=Path("/nowhere/at/all")), 1)
    assert caught.value.transient
