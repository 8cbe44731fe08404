"""The operator's client against real windows and against things that are none."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from gateway.console import client as module
from gateway.console.client import Client, NotRunning, Refused
from gateway.core.model import DeviceId
from tests.fakes.directory import FakeSite, make_view


async def test_questions_and_acts(operator: Path, site: FakeSite) -> None:
    client = Client(operator)
    assert (await asyncio.to_thread(client.device, "cam:3.a"))["id"] == "cam:3.a"
    assert (await asyncio.to_thread(client.act, "cam-1", "hold", "why not"))["after"] == "held"
    assert site.acts[0][3] == "why not"
    assert (await asyncio.to_thread(client.ready))["ready"] is True


async def test_all_pages_are_fetched(operator: Path, site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    site.all = {DeviceId(f"d{n}"): make_view(f"d{n}") for n in range(10)}
    site.order = tuple(site.all)
    found = await asyncio.to_thread(lambda: list(Client(operator).devices()))
    assert [each["id"] for each in found] == [f"d{n}" for n in range(10)]
    assert await asyncio.to_thread(lambda: list(Client(operator).devices("held"))) == []


@pytest.mark.parametrize("name", ["nobody", "../../healthz", "a b", "cam-1/hold", "é", "?x"])
async def test_no_name_reaches_another_path(operator: Path, site: FakeSite, name: str) -> None:
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(Client(operator).device, name)
    assert refused.value.status == 404


async def test_a_service_that_is_not_ready_still_answers(operator: Path, site: FakeSite) -> None:
    site.parts[0] = site.parts[0]._replace(ready=False)
    assert (await asyncio.to_thread(Client(operator).ready))["ready"] is False


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="start it with: ragate serve"):
        Client(tmp_path / "none.sock").ready()
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    with pytest.raises(NotRunning, match="start it with"):
        Client(stale).ready()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_socket_that_is_not_ours_to_use(tmp_path: Path) -> None:
    path = tmp_path / "locked.sock"
    with socket.socket(socket.AF_UNIX) as locked:
        locked.bind(str(path))
        locked.listen()
        path.chmod(0)
        with pytest.raises(NotRunning, match=r"operator\.group"):
            Client(path).ready()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    ],
)
def test_a_stranger_answers(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4_096)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises((NotRunning, Refused)):
                Client(path).ready()
        finally:
            thread.join(10)
