"""A console and an operator window on real sockets, over a fake site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from gateway.console.api import Console, Windows
from gateway.console.operator import OperatorWindow
from gateway.core.model import Standing
from tests.fakes.directory import FakeSite, make_view


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    json: Any


async def ask(session: aiohttp.ClientSession, method: str, url: str, **how: Any) -> Reply:
    async with session.request(method, url, **how) as response:
        body = await response.read()
        data = await response.json(content_type=None) if "json" in response.headers["Content-Type"] else None
        return Reply(response.status, dict(response.headers), body, data)


def windows(site: FakeSite) -> Windows:
    async def exposition() -> bytes:
        return b"ragate_withheld_total 0.0\n"

    return Windows(site, site, site.inventory, site.health, exposition, site.explained, site.proven, site.site)


@pytest.fixture
def site() -> FakeSite:
    return FakeSite(
        (
            make_view("cam-1"),
            make_view("cam-2", Standing.DISTRUSTED, "10.77.1.12"),
            make_view("cam:3.a", address="fd77:1::/64"),
        )
    )


@pytest.fixture
async def console(site: FakeSite) -> AsyncIterator[Console]:
    window = Console(windows(site), ("127.0.0.1", 0), ["gate.example"])
    await window.start()
    yield window
    await window.stop()


@pytest.fixture
async def web(console: Console) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{console.address[1]}") as session:
        yield session


@pytest.fixture
async def operator(site: FakeSite, tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "run" / "op.sock"
    window = OperatorWindow(windows(site), site, site, path)
    await window.start()
    yield path
    await window.stop()


@pytest.fixture
async def unix(operator: Path) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(path=str(operator))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as session:
        yield session
