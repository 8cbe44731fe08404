"""The page of all devices: who is cut, at a glance, harmless whatever a name or a reason holds."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import aiohttp
import pytest

from gateway.console.api import Console
from gateway.console.overview import ROWS, overview
from gateway.console.views import device_row, readiness
from gateway.control.ports import Health
from gateway.core.model import DeviceId, Standing
from tests.console.conftest import ask
from tests.console.test_page import words
from tests.fakes.directory import NOW, FakeSite, make_view

READY = readiness([Health("journal", True, "written")])


def rows(*standings: Standing) -> list[dict[str, Any]]:
    return [device_row(make_view(f"cam-{n}", standing)) for n, standing in enumerate(standings, 1)]


def counted(**changes: int) -> dict[str, int]:
    return {each.label: 0 for each in Standing} | changes


def said(page: str) -> str:
    return " ".join(" ".join(words(page).text).split())


def test_each_device_stands_there_with_its_standing_and_why() -> None:
    page = overview(
        rows(Standing.TRUSTED, Standing.DISTRUSTED), counted(trusted=1, distrusted=1), READY, "normal", NOW
    )
    told = said(page)
    assert "2 devices Ready : every part works. Site: normal." in told
    assert "cam-1 trusted admitted 14m 0s 1.2 ms gateway verified 10.77.1.11 a signed pass from verifier" in told
    assert "cam-2 distrusted deny - 1.2 ms gateway verified 10.77.1.11 a signed failure from verifier" in told
    assert 'href="/devices/cam-2"' in page


def test_standings_that_no_device_has_are_left_out_and_the_lowest_come_first() -> None:
    told = said(overview([], counted(trusted=90_000, held=1, lapsed=20), READY, "normal", NOW))
    assert "90,021 devices" in told
    assert "all 90,021 held 1 lapsed 20 trusted 90,000 All windows" in told


def test_what_is_not_ready_is_told_first() -> None:
    parts = readiness([Health("journal", False, "disk full"), Health("doors", True, "")])
    assert "Not ready : journal: disk full. Site: normal." in said(overview([], counted(), parts, "normal", NOW))


def test_nothing_becomes_markup() -> None:
    hostile = '"><script>alert(1)</script>'
    (row,) = rows(Standing.DISTRUSTED)
    row |= {"id": hostile, "profile": hostile, "addresses": [hostile]}
    row["last"]["why"] = hostile
    row["targets"][0] |= {"target": hostile, "state": hostile}
    parts = {"ready": False, "parts": [{"part": hostile, "ready": False, "detail": hostile}]}
    page = overview([row], counted(), parts, hostile, NOW, following=DeviceId(hostile))
    found = words(page)
    assert "script" not in found.tags
    assert " ".join(found.text).count(hostile) == 9
    assert "<script" not in unescape("".join(re.findall(r'href="([^"]*)"', page)))


async def test_its_links_lead_through_all_devices_of_a_standing(console: Console, site: FakeSite) -> None:
    many = ROWS + 50
    for number in range(many):
        name = DeviceId(f"door {number}&1")
        site.all[name] = make_view(name, Standing.LAPSED)
    site.order = tuple(site.all)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{console.address[1]}") as web:
        first = (await ask(web, "GET", "/devices")).body.decode()
        assert first.count("<tr>") == 1 + ROWS
        (lapsed,) = re.findall(r'href="([^"]+)"><?[^>]*>?lapsed', first)
        shown: list[str] = []
        link = unescape(lapsed)
        while link:
            page = (await ask(web, "GET", link)).body.decode()
            shown += re.findall(r"door \d+&amp;1", page)
            following = re.findall(r'href="([^"]+)">next page', page)
            link = unescape(following[0]) if following else ""
        assert shown == [f"door {number}&amp;1" for number in range(many)]
        assert "first page" in page


async def test_the_page_is_served_with_its_own_policy_and_leads_on(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/devices")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    for link in re.findall(r'href="([^"]+)"', reply.body.decode()):
        assert (await ask(web, "GET", unescape(link))).status == 200


@pytest.mark.parametrize("query", ["standing=good", "after=nobody", "limit=0", "x=1"])
async def test_a_bad_question_is_a_problem(web: aiohttp.ClientSession, query: str) -> None:
    assert (await ask(web, "GET", f"/devices?{query}")).status == 400
