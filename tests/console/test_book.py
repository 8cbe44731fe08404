"""What windows tell of the book, and asking for it to be read again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.console.api import Console, Windows
from gateway.console.operator import OperatorWindow
from gateway.core.errors import RagateError
from tests.console.conftest import ask, windows
from tests.fakes.directory import FakeSite

TOLD = {"digest": "d", "last": None}


class Reloads:
    """Takes requests, or refuses them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.busy = ""

    def ask(self, actor: str, reason: str) -> int:
        if self.busy:
            raise RagateError(self.busy)
        self.asked.append((actor, reason))
        return len(self.asked)


def telling(site: FakeSite) -> Windows:
    return replace(windows(site), book=lambda: TOLD)


@pytest.fixture
def reloads() -> Reloads:
    return Reloads()


@pytest.fixture
async def socket(site: FakeSite, reloads: Reloads, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    path = tmp_path / "op.sock"
    window = OperatorWindow(telling(site), site, site, path, reload=reloads.ask)
    await window.start()
    async with aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(path))) as session:
        yield session
    await window.stop()


async def test_both_windows_tell_of_the_book(socket: aiohttp.ClientSession, site: FakeSite) -> None:
    assert (await ask(socket, "GET", "/v1/book")).json == TOLD
    window = Console(telling(site), ("127.0.0.1", 0))
    await window.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{window.address[1]}") as web:
        assert (await ask(web, "GET", "/v1/book")).json == TOLD
        assert (await ask(web, "POST", "/v1/book/reload", json={"reason": "x"})).status == 404
    await window.stop()


async def test_a_reload_is_asked_for_with_name_and_reason(socket: aiohttp.ClientSession, reloads: Reloads) -> None:
    for number in (1, 2):
        reply = await ask(socket, "POST", "/v1/book/reload", json={"reason": "new cameras"})
        assert (reply.status, reply.json) == (202, {"number": number})
    actor, reason = reloads.asked[0]
    assert actor.startswith("unix:")
    assert actor != "unix:"
    assert reason == "new cameras"


async def test_one_at_a_time(socket: aiohttp.ClientSession, reloads: Reloads) -> None:
    reloads.busy = "reload 4 is under way"
    reply = await ask(socket, "POST", "/v1/book/reload", json={"reason": "x"})
    assert (reply.status, reply.json["detail"]) == (409, "reload 4 is under way")


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": " "}, {"reason": "a", "more": 1}, {"reason": "a\nb"}]
)
async def test_a_reason_is_needed(socket: aiohttp.ClientSession, reloads: Reloads, body: dict[str, object]) -> None:
    assert (await ask(socket, "POST", "/v1/book/reload", json=body)).status == 400
    assert (await ask(socket, "POST", "/v1/book/reload", data=b"reason=x")).status == 415
    assert reloads.asked == []


async def test_a_service_whose_book_stays_has_no_such_act(unix: aiohttp.ClientSession) -> None:
    assert (await ask(unix, "POST", "/v1/book/reload", json={"reason": "x"})).status == 404
