"""A device's page: everything that the API says of its targets, harmless whatever a name or a reason holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import aiohttp
import msgspec

from gateway.console.page import device_page
from gateway.console.views import device_detail
from gateway.control.ports import TargetState
from gateway.core.model import DENY, Standing
from tests.console.conftest import ask
from tests.fakes.directory import NOW, make_view

OUTCOME = {"target": "app-server", "backend": "link", "state": "verified", "accepted_ms": 1.25, "verified_ms": 2.5}


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def words(page: str) -> Words:
    found = Words()
    found.feed(page)
    return found


def detail(**changes: Any) -> dict[str, Any]:
    view = make_view("cam-1", Standing.DISTRUSTED)
    targets = (
        TargetState("gateway", "nft", True, DENY, "verified", "", None, NOW - 1.0),
        TargetState(
            "app-server", "link", True, DENY, "pending", "agent app: the link was lost", NOW + 41.0, NOW - 9
        ),
    )
    verdict = {
        "at": NOW - 2.0,
        "kind": "transition",
        "event": "failed",
        "effect": "lowered",
        "why": "FAILED_ATTEST",
    }
    verdict |= {"before": "trusted", "after": "distrusted", "issued_at": NOW - 2.0, "outcomes": [OUTCOME]}
    made = device_detail(view._replace(targets=targets, **changes), [verdict])
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return plain


def test_each_target_is_shown_with_what_is_wanted_accepted_verified_and_why_not() -> None:
    text = " ".join(" ".join(words(device_page(detail(), NOW)).text).split())
    assert "cam-1 distrusted" in text
    assert "a cut that waits: at most 41s" in text
    assert "1.2 ms after the verdict" in text
    assert "2.5 ms after the verdict" in text
    assert "9.0s ago, read back by the agent on its own host" in text
    assert "1.0s ago, element read from this host's kernel" in text
    assert "agent app: the link was lost" in text
    assert "app-server 2.5 ms" in text, "each target of each verdict"


def test_the_api_says_when_and_how_each_target_took_the_newest_verdict() -> None:
    gateway, server = detail()["targets"]
    assert (gateway["verdict_at"], gateway["accepted_ms"], gateway["verified_ms"]) == (None, None, None)
    assert gateway["verified_how"] == "element read from this host's kernel"
    assert (server["verdict_at"], server["accepted_ms"], server["verified_ms"]) == (NOW - 2.0, 1.25, 2.5)


def test_nothing_that_a_device_or_an_operator_is_called_becomes_markup() -> None:
    shown = detail()
    hostile = "<script>alert(1)</script>"
    shown["labels"] = {hostile: hostile}
    shown["chain"] = [hostile]
    shown["last"]["why"] = hostile
    shown["targets"][0] |= {"target": hostile, "backend": hostile, "wanted": hostile, "state": hostile}
    shown["targets"][0]["detail"] = hostile
    shown["records"] = {hostile: next(iter(shown["records"].values()))}
    shown["verdicts"][0] |= {"event": hostile, "effect": hostile, "before": hostile, "why": hostile}
    shown["verdicts"][0]["outcomes"][0] |= {"target": hostile}
    shown["override"] = {"profile": hostile, "until": NOW, "actor": hostile, "reason": hostile}
    found = words(device_page(shown, NOW))
    assert "script" not in found.tags
    assert " ".join(found.text).count(hostile) == 18


async def test_the_page_is_served_with_its_own_policy_and_leads_on(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/devices/cam-1")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    for link in re.findall(r'href="([^"]+)"', reply.body.decode()):
        assert (await ask(web, "GET", link)).status == 200
    assert (await ask(web, "GET", "/devices/nobody")).status == 404
