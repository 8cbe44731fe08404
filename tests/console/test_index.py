"""The index page, as text and, where a browser is installed, as a browser sees it."""

from __future__ import annotations

import asyncio
import shutil
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import pytest

from gateway.console import index
from gateway.console.api import Console
from tests.console.conftest import ask

CHROMIUM = shutil.which("chromium")

#: Seconds that a cold browser on a busy machine may take.
BROWSER_SECONDS = 120


class Found(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links.extend(value for name, value in attrs if name in {"href", "src"} and value)


async def test_the_page_links_to_what_exists_and_loads_nothing(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    found = Found()
    found.feed(reply.body.decode())
    assert not {"script", "link", "img", "iframe", "form"} & set(found.tags)
    assert len(found.links) == 6
    for link in found.links:
        assert link.startswith("/")
        assert (await ask(web, "GET", link)).status == 200


def test_acts_are_listed_only_where_they_are_taken() -> None:
    assert "POST" not in index.page(acts=False)
    assert "/hold" in index.page(acts=True)
    assert "/end-override" in index.page(acts=True)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_a_browser_applies_the_style_and_reports_no_violation(console: Console, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    shot = tmp_path / "index.png"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={shot}",
        "--dump-dom",
        f"http://127.0.0.1:{console.address[1]}/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BROWSER_SECONDS):
            dom, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert b"/v1/devices" in dom
    assert b"Content Security Policy" not in log
    assert shot.read_bytes().startswith(b"\x89PNG")
