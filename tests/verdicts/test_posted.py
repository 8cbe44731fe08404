"""ragate's own format: every step, on the bytes as they arrive."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused
from gateway.core.model import DeviceId, Outcome, Presented, Rejected, Standing, Tier, Timeliness, Verdict
from gateway.verdicts import Proof
from gateway.verdicts import posted as reader
from tests.posting import key_for, posted, sign, verdict
from tests.verdicts.bench import SOURCE, Bench

NOW = int(time.time())


def bench(**more: Any) -> Bench:
    return Bench("ragate", {"k1": "Ed25519"}, **more)


def signed(data: bytes, key: str = "k1", key_id: str = "k1") -> Presented:
    return Presented(False, key_id, sign(key_for(key), "Ed25519", data))


def say(device: str = "cam-1", result: str = "passed", **more: object) -> bytes:
    more = {"issued_at": NOW, **more}
    if result == "passed":
        more.setdefault("expires_at", NOW + 600)
    return posted(SOURCE, verdict(device, result, **more))


def test_a_signed_pass_is_a_verdict() -> None:
    data = say(nonce="abcdefgh", reason="quote good")
    found = bench().verdict(data, NOW + 1.5, signed(data))
    assert found == Verdict(
        DeviceId("cam-1"),
        SOURCE,
        Outcome.PASSED,
        NOW,
        Timeliness.FRESH,
        b"abcdefgh",
        "quote good",
        "",
        NOW + 600,
        Tier.AFFIRMING,
    )


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ("failed", Outcome.FAILED),
        ("rejected", Outcome.REJECTED),
        ("doubted", Outcome.DOUBTED),
        ("noted", Outcome.NOTED),
    ],
)
def test_every_result_has_its_outcome(result: str, outcome: Outcome) -> None:
    data = say(result=result)
    assert bench().verdict(data, NOW, signed(data)).outcome is outcome


def test_3_to_5_the_signature_is_over_exactly_these_bytes_by_a_key_of_this_source() -> None:
    data = say()
    good = signed(data)
    assert bench().refused(data, NOW) == "signature"
    assert bench().refused(data, NOW, Presented(False, "k1", b"")) == "signature"
    assert bench().refused(data, NOW, Presented(False, "k1", b"\x00" * 64)) == "signature"
    assert bench().refused(data, NOW, Presented(False, "k1", good.signature[:63])) == "signature"
    assert bench().refused(data + b" ", NOW, good) == "signature"
    assert bench().refused(data, NOW, signed(data, key="other")) == "signature"
    assert bench().refused(data, NOW, Presented(False, "k2", good.signature)) == "key"
    assert bench().refused(data, NOW, Presented(False, "../k1", good.signature)) == "key"
    assert isinstance(bench().one(data, NOW, Presented(False, "", good.signature)), Verdict)  # it has only one
    two = Bench("ragate", {"k1": "Ed25519", "k2": "Ed25519"})
    assert two.refused(data, NOW, Presented(False, "", good.signature)) == "key"
    assert two.refused(data, NOW, Presented(False, "k2", good.signature)) == "signature"


def test_1_what_the_source_demands_is_asked_for() -> None:
    data = say()
    both = bench(proof=Proof.BOTH)
    assert both.refused(data, NOW, signed(data)) == "source"
    assert both.refused(data, NOW, Presented(True)) == "signature"
    assert isinstance(both.one(data, NOW, signed(data)._replace(certificate=True)), Verdict)
    alone = Bench("ragate", {}, proof=Proof.CERTIFICATE)
    assert alone.refused(data, NOW) == "source"
    assert alone.refused(data, NOW, signed(data)._replace(certificate=True)) == "signature"
    assert isinstance(alone.one(data, NOW, Presented(True)), Verdict)


def test_1_a_document_for_another_source_is_nothing_here() -> None:
    data = posted("other", verdict("cam-1", issued_at=NOW))
    assert bench().refused(data, NOW, signed(data)) == "source"


BROKEN = [
    {"device": "c\u0430m-1"},  # a Cyrillic letter
    {"device": "cam-1\u200b"},
    {"device": "CAM-1/../x"},
    {"device": ""},
    {"device": "x" * 65},
    {"device": 7},
    {"result": "PASSED"},
    {"result": None},
    {"issued_at": 1.5},
    {"issued_at": "1"},
    {"issued_at": True},
    {"issued_at": -1},
    {"issued_at": 1 << 41},
    {"nonce": "short"},
    {"nonce": "with space here"},
    {"nonce": "n" * 65},
    {"nonce": None},
    {"expires_at": None},
    {"expires_at": "soon"},
    {"reason": "x" * 201},
    {"reason": "two\nlines"},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_2_a_document_that_is_not_exactly_so_is_refused(change: dict[str, Any]) -> None:
    data = say(**change)
    assert bench().refused(data, NOW, signed(data)) == "format"


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        json.dumps({"source": SOURCE, "verdicts": []}).encode(),
        json.dumps({"source": SOURCE, "verdicts": [{}] * 1_001}).encode(),
        json.dumps({"source": SOURCE, "verdicts": [], "more": 1}).encode(),
        say()[:-1],
        say().replace(b'"device"', b'"device": "cam-2", "device"'),
        say().replace(b'"device"', b'"d\\u0065vice": "cam-2", "device"'),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_2_the_whole_is_refused(data: bytes) -> None:
    assert bench().refused(data, NOW, signed(data)) == "format"


ODD = st.sampled_from(
    [
        b'"device"',
        b'"expires_at"',
        b'"expires_at": null, ',
        b'"expires_at": 7, ',
        b'"reason": "", ',
        b'"reason": "\\"device\\"", ',
        b'"nonce": "expires_at", ',
        b'"nonce"',
        b"1.0",
        b"1e3",
        b"01",
        b"\t",
        b"\x00",
        b"\\u0061",
        "é".encode(),
        b"\xff",
        b"{}",
        b"null",
        b" ",
        b"",
    ]
)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), ODD), max_size=3), st.integers(1, 3))
@example([(1, 0, b'"source": "src", ')], 1)
@example([(20, 0, b'"expires_at": 7, ')], 2)
def test_the_quick_reader_takes_nothing_that_the_strict_one_does_not(
    changes: list[tuple[int, int, bytes]], many: int
) -> None:
    """Whatever it takes, the strict reader reads alike; what it does not take is the strict one's to judge."""
    verdicts = [{"device": f"cam-{n}", "result": "failed", "issued_at": 7, "nonce": "n" * 8} for n in range(many)]
    verdicts[0]["expires_at"] = 9
    data = json.dumps({"source": SOURCE, "verdicts": verdicts}).encode()
    assert reader._plain(data) == reader._strict(data)
    for at, gone, put in changes:
        data = data[:at] + put + data[at + gone :]
    quick = reader._plain(data)
    if quick is not None:
        assert quick == reader._strict(data)


@pytest.mark.parametrize(
    "name", [b"source", b"verdicts", b"device", b"result", b"issued_at", b"nonce", b"expires_at"]
)
def test_the_quick_reader_takes_no_member_twice(name: bytes) -> None:
    made = {"device": "cam-1", "result": "passed", "issued_at": 7, "nonce": "n" * 8, "expires_at": 9}
    data = json.dumps({"source": SOURCE, "verdicts": [made, {**made, "expires_at": None}]}).encode()
    data = data.replace(b', "expires_at": null', b"")
    assert reader._plain(data) is not None
    start = data.index(b'"' + name + b'"')
    end = min(place for place in (data.find(b",", start), data.find(b"}", start)) if place > 0)
    if name == b"verdicts":
        end = len(data) - 1
    twice = data[:end] + b", " + data[start:end] + data[end:]
    json.loads(twice)  # it is JSON all the same
    assert reader._plain(twice) is None
    with pytest.raises(InputRefused, match="twice"):
        reader._strict(twice)


@pytest.mark.parametrize("device", ["cam-9", "CAM-1", "cam-1.", "cam-1:0"])
def test_6_a_device_of_nobody_or_of_another_source(device: str) -> None:
    data = say(device, "failed")
    assert bench().refused(data, NOW, signed(data)) == "device"


@pytest.mark.parametrize(
    ("age", "step"), [(121, "freshness"), (120, ""), (-2, ""), (-3, "freshness"), (10**8, "freshness")]
)
def test_7_a_pass_must_be_fresh(age: int, step: str) -> None:
    data = say(issued_at=NOW - age, expires_at=NOW + 600)
    found = bench().one(data, NOW, signed(data))
    assert (found.refusal.value if isinstance(found, Rejected) else "") == step


def test_7_a_pass_must_not_have_expired_by_our_clock() -> None:
    data = say(issued_at=NOW - 60, expires_at=NOW - 1)
    assert bench().refused(data, NOW, signed(data)) == "freshness"
    data = say(issued_at=NOW - 60, expires_at=NOW)
    assert bench().refused(data, NOW, signed(data)) == "freshness"


@pytest.mark.parametrize(
    ("age", "timeliness"), [(121, Timeliness.STALE), (-3, Timeliness.FUTURE), (0, Timeliness.FRESH)]
)
def test_7_a_failure_is_never_thrown_away(age: int, timeliness: Timeliness) -> None:
    data = say(result="failed", issued_at=NOW - age)
    assert bench().verdict(data, NOW, signed(data)).timeliness is timeliness


def test_8_and_9_replay_and_order_are_by_what_was_accepted() -> None:
    one = bench()
    first = say(nonce="aaaaaaaa")
    assert isinstance(one.one(first, NOW, signed(first)), Verdict)
    assert one.refused(first, NOW, signed(first)) == "replay"
    assert one.refused(first, NOW - 50, signed(first)) == "freshness"  # our clock rolled back
    same = say(nonce="bbbbbbbb")
    assert one.refused(same, NOW, signed(same)) == "order"
    older = say(nonce="cccccccc", issued_at=NOW - 5)
    assert one.refused(older, NOW, signed(older)) == "order"
    failed = say(result="failed", nonce="dddddddd", issued_at=NOW + 1)
    assert isinstance(one.one(failed, NOW + 1, signed(failed)), Verdict)
    assert one.refused(failed, NOW + 1, signed(failed)) == "replay"
    again = say(nonce="eeeeeeee", issued_at=NOW + 1)
    assert one.refused(again, NOW + 1, signed(again)) == "order"


def test_8_the_second_of_two_equal_verdicts_in_one_document_is_a_replay() -> None:
    one = bench()
    each = verdict("cam-1", issued_at=NOW, nonce="aaaaaaaa")
    data = posted(SOURCE, each, each, verdict("cam-1", "failed", issued_at=NOW, nonce="bbbbbbbb"))
    first, second, third = one.judge(data, NOW, signed(data))
    assert isinstance(first, Verdict)
    assert isinstance(second, Rejected)
    assert second.refusal.value == "replay"
    assert isinstance(third, Verdict)
    assert one.records[DeviceId("cam-1")].standing is Standing.DISTRUSTED


def test_a_refusal_repeats_little_of_the_claim_and_only_ascii() -> None:
    data = posted(SOURCE, verdict("cam-9", "failed", issued_at=NOW))
    found = bench().one(data, NOW, signed(data))
    assert isinstance(found, Rejected)
    assert (found.device, found.authentic, found.peer) == ("cam-9", False, "192.0.2.9")
    data = say(issued_at=NOW - 500)
    late = bench().one(data, NOW, signed(data))
    assert isinstance(late, Rejected)
    assert late.authentic
