"""What an operator reads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console import text
from gateway.console.views import device_row, explanation, proof
from gateway.core.model import Standing
from tests.fakes.directory import NOW, FakeSite, make_view


def row(*how: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(device_row(make_view(*how))))
    return found


async def detail(*how: Any) -> dict[str, Any]:
    site = FakeSite((make_view(*how),))
    verdicts = await site.verdicts(site.order[0], 10)
    explained = await site.explained(site.order[0])
    assert explained is not None
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(explanation(explained, verdicts)))
    return found


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (842, "14m 2s"),
        (3_600, "1h 0m"),
        (90_061, "1d 1h"),
    ],
)
def test_span(seconds: float, shown: str) -> None:
    assert text.span(seconds) == shown


def test_a_target_is_pending_until_it_is_told_what_was_decided() -> None:
    view = make_view("cam-1")
    (told,) = view.targets
    for wanted, state, shown in (
        ("admitted", "verified", ("verified", "")),
        ("admitted", "pending", ("pending", "")),
        ("deny", "verified", ("pending", "admitted is decided, and admits when the journal has it")),
        ("deny", "pending", ("pending", "admitted is decided, and admits when the journal has it")),
        ("deny", "failed", ("failed", "")),
    ):
        (target,) = device_row(view._replace(targets=(told._replace(wanted=wanted, state=state),)))["targets"]
        assert (target["wanted"], target["state"], target["detail"]) == (wanted, *shown)
    (cut,) = device_row(make_view("cam-1", Standing.DISTRUSTED))["targets"]
    assert (cut["wanted"], cut["state"]) == ("deny", "verified")


def test_until_says_past_and_none() -> None:
    assert text.until(None, NOW) == "-"
    assert text.until(NOW + 90, NOW) == "1m 30s"
    assert text.until(NOW - 90, NOW) == "1m 30s ago"


def test_table_is_aligned_and_colour_does_not_move_columns() -> None:
    rows = (("cam-1", "trusted"), ("a-long-name", "held"))
    plain = list(text.table(("DEVICE", "STANDING"), rows))
    assert plain == ["DEVICE       STANDING", "cam-1        trusted", "a-long-name  held"]
    painted = list(text.table(("DEVICE", "STANDING"), rows, lambda word: f"<{word}>"))
    assert painted[1] == "<cam-1>        <trusted>"


@given(st.text())
def test_clean_text_cannot_move_the_cursor(raw: str) -> None:
    assert text.clean(raw).isprintable()


def test_a_hostile_word_cannot_forge_a_line() -> None:
    device = row("cam-1")
    device["last"]["why"] = "x\ncam-2  trusted\x1b[2J"
    lines = list(text.table(text.DEVICE_HEAD, [text.device_line(device, NOW)]))
    assert len(lines) == 2
    assert "\x1b" not in lines[1]


def test_device_line() -> None:
    assert text.device_line(row("cam-1"), NOW) == (
        "cam-1",
        "trusted",
        "admitted",
        "14m 0s",
        "1.2",
        "gateway:verified",
        "10.77.1.11",
        "a signed pass from verifier",
    )
    assert text.device_line(row("cam-2", Standing.DISTRUSTED), NOW)[3] == "-"


def test_device_line_without_a_verdict() -> None:
    device = row("cam-1") | {"last": None, "newest": None, "verified_ms": None, "targets": [], "addresses": []}
    assert text.device_line(device, NOW)[4:] == ("-", "-", "-", "no verdict yet")


def test_device_line_after_a_restart() -> None:
    device = row("cam-1") | {"last": None}
    assert text.device_line(device, NOW)[-1] == f"restored; newest verdict {text.instant(NOW - 60)}"
    assert len(text.device_line(device, NOW)[-1]) <= 60


async def test_show_after_a_restart_without_a_row_in_the_journal() -> None:
    device = await detail("cam-1") | {"last": None}
    told = next(line for line in text.show(device, NOW) if line.startswith("Why: "))
    assert told == f"Why: restored from the journal; newest verdict issued {text.instant(NOW - 60)}"


def test_counts_line() -> None:
    assert text.counts_line([]) == "0 devices"
    assert text.counts_line([row("a")]) == "1 device: 1 trusted"
    two = [row("a"), row("b", Standing.HELD), row("c")]
    assert text.counts_line(two) == "3 devices: 2 trusted, 1 held"


async def test_explain_tells_everything() -> None:
    told = "\n".join(text.explain(await detail("cam-1"), NOW))
    for words in (
        "cam-1 is trusted and has profile admitted.",
        "Why: a signed pass from verifier",
        "passed (raised, unknown → trusted), 1m 0s ago",
        "(14m 0s left)",
        "(1m 50s left)",
        "10.77.1.11 (anchor upstream)",
        "class=camera",
        "1.2 ms from the last verdict to read-back",
        "1. built-in: deny",
        "2. node default: admitted",
        "gateway  nft      yes       admitted  verified  -          1m 50s",
        "unknown → trusted  1.2",
        "refused: replay",
    ):
        assert words in told, words


async def test_explain_names_each_rule_and_what_stands() -> None:
    lines = [line.split() for line in text.explain(await detail("cam-1"), NOW)]
    for words in (
        "built-in - yes deny it is for every device",
        "* class cameras yes admitted, max_age 900 s label class=camera",
        "class doors no probation label class is camera, not door",
        "Profile admitted reaches feed (10.77.3.2 port 8001/tcp)",
        "gateway nft 10.77.1.11 admitted 14m 0s admitted -",
    ):
        assert words.split() in lines, words
    cut = "\n".join(text.explain(await detail("cam-1", Standing.DISTRUSTED), NOW))
    assert "Profile deny reaches no gated service, the corridor only" in cut


async def test_explain_tells_what_a_gate_answers() -> None:
    device = await detail("cam-1")
    rule = device["rules"][0]
    for answer, words in (
        ({"tombstone": True, "stands": ""}, "cut -"),
        ({"tombstone": True}, "cut, and admitted"),
        ({"stands": "", "ends": None}, "nothing -"),
        ({"trouble": "no answer"}, "not read: no answer"),
    ):
        device["rules"] = [rule | answer]
        assert f" {words}" in " ".join(list(text.explain(device, NOW))[-1].split())
    device["rate"] = {"new_connections": 10, "per": 1.0}
    assert "; at most 10 new connections in 1 s" in "\n".join(text.explain(device, NOW))


async def test_who_holds_a_device_and_why_is_told_wherever_it_is() -> None:
    held = {"at": NOW - 60, "actor": "unix:ann", "reason": "smoke"}
    device = await detail("cam-1") | {"held": held}
    assert text.device_line(device, NOW)[-1] == "held by unix:ann: smoke"
    assert "Held      by unix:ann, 1m 0s ago: smoke" in list(text.show(device, NOW))


async def test_an_override_is_told_wherever_the_device_is() -> None:
    word = {"profile": "maintenance", "until": NOW + 60, "actor": "unix:ann", "reason": "lens"}
    device = await detail("cam-1") | {"override": word}
    assert text.device_line(device, NOW)[-1] == "override to maintenance, 1m 0s left: lens"
    told = next(line for line in text.show(device, NOW) if line.startswith("Override"))
    assert told == f"Override  maintenance until {text.instant(NOW + 60)} (1m 0s left), by unix:ann: lens"
    assert not any(line.startswith("Override") for line in text.show(await detail("cam-1"), NOW))


async def test_explain_names_the_operator() -> None:
    device = await detail("cam-1")
    device["verdicts"] = [{"at": NOW, "event": "held", "actor": "unix:alice", "why": "held: lens replaced"}]
    assert "held: lens replaced (by unix:alice)" in "\n".join(text.explain(device, NOW))


async def test_explain_a_device_that_nothing_is_known_of() -> None:
    device = await detail("cam-1", Standing.UNKNOWN)
    device |= {"last": None, "newest": None, "verified_ms": None, "verdicts": [], "anchor": "none", "labels": {}}
    told = "\n".join(text.explain(device, NOW))
    assert "no verdict about it has arrived yet" in told
    assert "none: nothing is admitted" in told
    assert "nothing guarantees" in told
    assert "Last verdicts" not in told


async def test_a_proof_as_lines() -> None:
    site = FakeSite((make_view("cam-1"),))
    found = await site.proven(site.order[0])
    assert found is not None
    lines = list(text.proof(msgspec.json.decode(msgspec.json.encode(proof(found))), NOW))
    assert lines[0] == "cam-1 is trusted and has profile admitted."
    assert lines[1].endswith("Z: every required target shows what is wanted.")
    assert lines[3].split() == [
        "TARGET",
        "BACKEND",
        "WHAT",
        "WANTED",
        "ENDS",
        "IN",
        "RESULT",
        "READ",
        "AT",
        "ELEMENT",
    ]
    assert "verified" in lines[4]
    assert "inet ragate admitted4 { 10.77.1.11 expires 110.0s }" in lines[4]
    assert "kubearmor host policy" in lines[5]
    assert "cannot be read  -" in lines[5]


async def test_a_proof_that_lacks_an_element_says_so() -> None:
    site = FakeSite((make_view("cam-1"),))
    found = await site.proven(site.order[0])
    assert found is not None
    missing = found._replace(lines=[found.lines[0]._replace(result="not found", element="", read_at=NOW)])
    made = proof(missing)
    assert made["proven"] is False
    lines = list(text.proof(made, NOW))
    assert lines[1].endswith("not every required target shows it.")
    assert "not found" in lines[4]
    assert proof(found._replace(lines=[]))["proven"] is False, "nothing read is nothing proven"
