"""Keylime's notifications and statuses."""

from __future__ import annotations

import json
import time
from zoneinfo import ZoneInfo

import pytest

from gateway.core.model import Outcome, Presented, Rejected, Timeliness, Verdict
from gateway.verdicts import Proof
from tests.posting import key_for, revocation, sign, status
from tests.verdicts.bench import Bench

NOW = int(time.time())
AT = time.asctime(time.gmtime(NOW))
AGENT, OTHER = "d432fbb3-d2f1-4a97-9ef7-75bd81c00000", "d432fbb3-d2f1-4a97-9ef7-75bd81c00001"
CERTIFIED = Presented(True)


def bench(keys: tuple[str, ...] = ("default",)) -> Bench:
    return Bench("keylime", dict.fromkeys(keys, "Keylime"), devices=(AGENT, OTHER))


def notify(key: str = "default", agent: str = AGENT, **more: object) -> bytes:
    return revocation(key_for(key, "Keylime"), agent, **{"event_time": AT, **more})


def test_a_revocation_fails_the_agent() -> None:
    found = bench().verdict(notify(), NOW + 1)
    assert (found.device, found.outcome, found.issued_at) == (AGENT, Outcome.FAILED, NOW)
    assert found.reason == "Keylime revocation CRITICAL ima.validation"
    assert bench().verdict(notify(type="hello"), NOW + 1).outcome is Outcome.NOTED


def test_local_time_is_read_in_the_configured_zone() -> None:
    berlin = bench().but(zone=ZoneInfo("Europe/Berlin"))
    summer = notify(event_time="Wed Jul  1 12:00:00 2026")
    assert bench().verdict(summer, NOW).issued_at - berlin.verdict(summer, NOW).issued_at == 2 * 3_600
    assert bench().verdict(summer, NOW).timeliness is Timeliness.STALE


def test_each_agents_key_speaks_for_that_agent_alone() -> None:
    two = bench((AGENT, OTHER))
    assert isinstance(two.one(notify(AGENT), NOW), Verdict)
    assert two.refused(notify(OTHER, AGENT), NOW) == "signature"
    assert two.refused(notify("default", "somebody-else"), NOW) == "key"
    assert bench().refused(notify(AGENT), NOW) == "signature"


def test_unsigned_and_altered_notifications() -> None:
    assert bench().refused(revocation(None, AGENT), NOW) == "signature"
    whole = json.loads(notify())
    whole["msg"] = whole["msg"].replace(AGENT, OTHER)
    assert bench().refused(json.dumps(whole).encode(), NOW) == "signature"
    pkcs = json.loads(notify())
    pkcs["signature"] = (
        __import__("base64").b64encode(sign(key_for("default", "Keylime"), "RS256", pkcs["msg"].encode())).decode()
    )
    assert bench().refused(json.dumps(pkcs).encode(), NOW) == "signature"


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"msg": 1, "signature": ""}',
        b'{"msg": "{}", "signature": "AA==", "more": 1}',
        b'{"msg": "{}", "signature": "AA=="}',
        b'{"msg": "[[[[[[[[[[[[[[[[[[[", "signature": "AA=="}',
        b'{"msg": "{\\"agent_id\\": \\"a\\", \\"agent_id\\": \\"b\\"}", "signature": "AA=="}',
        json.dumps({"msg": json.dumps({"agent_id": AGENT}), "signature": "?"}).encode(),
        json.dumps({"msg": "x" * 70_000, "signature": "AA=="}).encode(),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_2_what_is_no_notification_is_refused(body: bytes) -> None:
    assert bench().refused(body, NOW) == "format"


@pytest.mark.parametrize(
    "when", ["", 5, None, "2026-11-21T22:20:11Z", "Fri Foo 21 22:20:11 2026", "Fri Feb 31 22:20:11 2026"]
)
def test_2_a_time_that_asctime_does_not_write(when: object) -> None:
    assert bench().refused(notify(event_time=when), NOW) == "format"


def test_8_and_9_a_revocation_counts_once() -> None:
    one = bench()
    data = notify()
    assert isinstance(one.one(data, NOW), Verdict)
    assert one.refused(data, NOW) == "replay"
    assert one.refused(notify(context="another"), NOW) == "order"


def test_this_source_never_raises() -> None:
    row = bench().form
    assert not row.raises
    one = bench()
    passing = Bench("ragate", {}, proof=Proof.CERTIFICATE)
    liar = row._replace(read=passing.form.read)
    from gateway.verdicts import VerdictAuthenticator
    from tests.posting import posted, verdict
    from tests.verdicts.bench import SOURCE

    one.authenticator = VerdictAuthenticator(passing.source, liar)
    found = one.one(posted(SOURCE, verdict(AGENT, issued_at=NOW)), NOW, CERTIFIED)
    assert isinstance(found, Rejected)
    assert found.refusal.value == "source"


# --- status -------------------------------------------------------------------------------------------------------


def statuses() -> Bench:
    return Bench("keylime-status", {}, devices=(AGENT,))


def answer(**more: object) -> bytes:
    return status(AGENT, **{"last_received_quote": NOW, "last_successful_attestation": NOW, **more})


def test_a_pass_is_as_old_as_the_last_good_quote() -> None:
    found = statuses().verdict(answer(last_successful_attestation=NOW - 30), NOW, CERTIFIED)
    assert (found.outcome, found.issued_at) == (Outcome.PASSED, NOW - 30)
    assert statuses().refused(answer(last_successful_attestation=NOW - 130), NOW, CERTIFIED) == "freshness"
    assert statuses().refused(answer(last_successful_attestation=0), NOW, CERTIFIED) == "format"
    assert statuses().refused(answer(last_successful_attestation=None), NOW, CERTIFIED) == "format"


@pytest.mark.parametrize(
    ("state", "word", "outcome"),
    [
        (3, "PASS", Outcome.PASSED),
        (4, None, Outcome.PASSED),
        (None, "PASS", Outcome.PASSED),
        (7, "FAIL", Outcome.FAILED),
        (9, "PASS", Outcome.FAILED),
        (3, "FAIL", Outcome.FAILED),
        (None, "FAIL", Outcome.FAILED),
        (1, "PENDING", Outcome.NOTED),
        (8, "PASS", Outcome.NOTED),
        (None, "TIMEOUT", Outcome.NOTED),
    ],
)
def test_states_and_statuses(state: int | None, word: str | None, outcome: Outcome) -> None:
    more = {"operational_state": state, "attestation_status": word}
    data = json.loads(answer(**more))
    data["answer"]["results"] = {
        name: value for name, value in data["answer"]["results"].items() if value is not None
    }
    assert statuses().verdict(json.dumps(data).encode(), NOW, CERTIFIED).outcome is outcome


def test_a_failure_without_a_quote_is_of_now() -> None:
    data = answer(operational_state=7, attestation_status="FAIL", last_received_quote=0)
    assert statuses().verdict(data, NOW + 0.7, CERTIFIED).issued_at == NOW


@pytest.mark.parametrize(
    "more",
    [
        {"operational_state": 11},
        {"operational_state": True},
        {"operational_state": "3"},
        {"attestation_status": "GOOD"},
        {"attestation_status": ["PASS"]},
        {"attestation_status": {}},
        {"operational_state": [3]},
        {"operational_state": None, "attestation_status": ""},
        {"attestation_count": -1},
        {"last_successful_attestation": "now"},
    ],
    ids=str,
)
def test_2_answers_that_keylime_does_not_give(more: dict[str, object]) -> None:
    assert statuses().refused(answer(**more), NOW, CERTIFIED) == "format"


def test_1_nothing_vouches_for_a_bare_answer() -> None:
    assert statuses().refused(answer(), NOW) == "source"
    signed = Bench("keylime-status", {"k1": "Ed25519"}, proof=Proof.SIGNATURE, devices=(AGENT,))
    data = answer()
    assert signed.refused(data, NOW) == "signature"
    assert isinstance(signed.one(data, NOW, Presented(False, "k1", sign(key_for("k1"), "", data))), Verdict)


def test_8_the_same_status_twice_is_one() -> None:
    one = statuses()
    assert isinstance(one.one(answer(), NOW, CERTIFIED), Verdict)
    assert one.refused(answer(), NOW + 1, CERTIFIED) == "replay"
