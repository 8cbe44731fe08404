"""Authentication, step by step; and raising strict, lowering generous over outcome x timeliness x marks."""

from __future__ import annotations

import dataclasses
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.acceptance import WINDOW_FUTURE, WINDOW_PAST
from gateway.core.errors import Refusal
from gateway.core.lifecycle import Rules, event_of, step
from gateway.core.model import DeviceId, Outcome, Record, Rejected, Standing, Tier, Timeliness, Verdict
from gateway.sediment.authenticate import SedimentAuthenticator
from gateway.sediment.compose import REQUESTED_ENDPOINT
from gateway.sediment.wire import Endpoint, Protocol, Reason
from tests.sediment.recorded import (
    DEVICE,
    NOW,
    SOURCE,
    Bench,
    Message,
    make_alert,
    messages,
    of_kind,
    own_bench,
    published_hmac_keys,
    recorded_bench,
    unhurried,
)

RAISING = {Reason.PASS}
LOWERING = {Reason.FAILED_ATTEST, Reason.FAILED_AUTH, Reason.USER_REJECT}
RECORDED_ONLY = set(Reason) - RAISING - LOWERING


def verdict(result: Verdict | Rejected) -> Verdict:
    assert isinstance(result, Verdict), result
    return result


def rejected(result: Verdict | Rejected) -> Rejected:
    assert isinstance(result, Rejected), result
    assert len(result.detail) <= 200
    assert len(result.device) <= 64
    return result


# --- recorded messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", of_kind("ALERT", ("pass", "full-session", "failed-record-altered-on-demand")))
def test_every_genuine_alert_is_a_fresh_verdict(message: Message) -> None:
    result = verdict(recorded_bench().judge(message.frame, message.about["captured_at"]))
    assert result.device == message.about["device_id"]
    assert result.source == SOURCE
    assert result.reason == message.fields["reason"]
    assert result.outcome.name == {"PASS": "PASSED", "FAILED_ATTEST": "FAILED"}.get(result.reason, result.reason)
    assert result.issued_at == message.about["decoded"]["timestamp"]
    assert result.nonce.hex() == message.about["decoded"]["nonce"]
    assert result.timeliness is Timeliness.FRESH
    assert result.valid_until is None
    where = message.fields["endpoint"]
    seen = f"tcp:{where['address']}:{where['port_byteswapped']}" if result.reason != "REQUESTED" else ""
    assert result.claim == seen


NEGATIVE = {
    "address-changed": Refusal.SIGNATURE,
    "bad-hmac": Refusal.HMAC,
    "bad-signature": Refusal.SIGNATURE,
    "device-changed": Refusal.SIGNATURE,
    "digest-length-0": Refusal.FRAMING,
    "message-id-99": Refusal.KIND,
    "nonce-length-65535": Refusal.FRAMING,
    "not-sediment": Refusal.FRAMING,
    "reason-changed": Refusal.SIGNATURE,
    "size-max": Refusal.FRAMING,
    "size-zero": Refusal.FRAMING,
    "trailing-bytes": Refusal.LENGTHS,
    "truncated": Refusal.FRAMING,
    "zero-digest-known-device": Refusal.HMAC,
}


def test_every_negative_line_is_expected_here() -> None:
    assert {message.name for message in messages("negative")} == set(NEGATIVE)


@pytest.mark.parametrize("message", messages("negative"), ids=lambda m: m.name)
def test_every_negative_line_has_its_named_refusal(message: Message) -> None:
    issued_at = 1_795_283_424  # of the alert that all of them were derived from
    result = rejected(recorded_bench().judge(message.frame, issued_at + 0.5))
    assert result.refusal is NEGATIVE[message.name]
    assert not result.authentic
    assert result.peer == "10.77.2.2"
    assert result.at == issued_at + 0.5
    if result.refusal in {Refusal.HMAC, Refusal.SIGNATURE}:
        assert result.device == message.about["device_id"]


SYNTHETIC = {
    "EXPIRATION": Outcome.NOTED,
    "FAILED_AUTH": Outcome.FAILED,
    "INIT": Outcome.NOTED,
    "SQN_OUT_OF_SYNC": Outcome.NOTED,
    "TIME_OUT": Outcome.NOTED,
    "USER_REJECT": Outcome.REJECTED,
}


@pytest.mark.parametrize("message", messages("synthetic"), ids=lambda m: m.name)
def test_every_synthetic_line(message: Message) -> None:
    result = recorded_bench().judge(message.frame, message.about["captured_at"])
    if "stale" in message.name:
        assert rejected(result).refusal is Refusal.FRESHNESS
        assert rejected(result).authentic
    else:
        reason = message.fields["reason"]
        assert verdict(result).outcome is SYNTHETIC[reason]
        assert verdict(result).nonce == message.frame[38:70]
        assert verdict(result).timeliness is Timeliness.FRESH


@pytest.mark.parametrize("message", messages("requested"), ids=lambda m: m.name)
def test_every_requested_line(message: Message) -> None:
    result = recorded_bench().judge(message.frame, message.about["captured_at"])
    raw = message.frame[76 : 76 + message.frame[75]]
    if raw.decode("latin-1") in published_hmac_keys():
        assert verdict(result).outcome is Outcome.REQUESTED
        assert verdict(result).claim == ""
    else:
        assert rejected(result).refusal is Refusal.DEVICE
        assert not rejected(result).authentic
        assert rejected(result).device.isascii()
        assert rejected(result).device.isprintable()


def test_the_hostile_ids_of_the_recording() -> None:
    bench = recorded_bench()
    claimed = {
        result.device
        for message in messages("requested")
        if isinstance(result := bench.judge(message.frame, message.about["captured_at"]), Rejected)
    }
    assert {"No-Such-Device", "a;b|c`d`$(e)", r"\xff\xfe\x01'x"} <= claimed


def replay(bench: Bench, recording: list[Message]) -> None:
    for message in recording:
        at = message.about["captured_at"]
        result = bench.judge(message.frame, at)
        if isinstance(result, Verdict):
            bench.records[result.device] = step(bench.records[result.device], event_of(result, at), Rules()).record


def test_recordings_give_the_standings_and_a_second_replay_changes_nothing() -> None:
    recording = sorted(
        of_kind("ALERT", ("pass", "full-session", "failed-record-altered-on-demand", "requested", "synthetic")),
        key=lambda message: float(message.about["captured_at"]),
    )
    bench = recorded_bench()
    replay(bench, recording)
    once = dict(bench.records)
    standings = {device: record.standing for device, record in once.items()}
    assert standings[DeviceId("Ubuntu-001")] is Standing.DISTRUSTED  # FAILED_AUTH
    assert standings[DeviceId("Ubuntu-002")] is Standing.TRUSTED
    assert standings[DeviceId("Ubuntu-004")] is Standing.DISTRUSTED  # USER_REJECT
    assert standings[DeviceId("Giant_Gecko-001")] is Standing.UNKNOWN  # was only REQUESTED
    replay(bench, recording)
    assert bench.records == once
    replay(bench, recording[::-1])
    assert bench.records == once


# --- steps 1 to 5 ------------------------------------------------------------------------------------------------


def test_a_good_pass() -> None:
    result = verdict(own_bench().judge(make_alert(), NOW))
    expected = (DEVICE, SOURCE, Outcome.PASSED, NOW, Timeliness.FRESH, b"n" * 32, "PASS", "tcp:192.0.2.7:35940")
    assert result[:8] == expected
    assert result.tier is Tier.AFFIRMING


def other_key(bits: int = 2048) -> RSAPrivateKey:
    return generate_private_key(65537, bits)


def test_1_a_signature_longer_than_the_sources_key_makes() -> None:
    result = rejected(own_bench().judge(make_alert(signing_key=lambda: other_key(3072)), NOW))
    assert result.refusal is Refusal.LENGTHS
    assert "384" in result.detail


def test_2_a_device_with_a_record_but_without_a_key_and_the_reverse() -> None:
    bench = own_bench()
    bench.records.clear()
    assert rejected(bench.judge(make_alert(), NOW)).refusal is Refusal.DEVICE
    bench.records[DeviceId("cam-2")] = Record()
    assert rejected(bench.judge(make_alert(device=b"cam-2"), NOW)).refusal is Refusal.DEVICE


@pytest.mark.parametrize(
    "device", [b"", b"CAM-1", b"cam-1\x00", b"cam-1 ", b"\xffcam-1", b"cam\xad1", b"cam-1" * 51]
)
def test_2_an_id_that_is_nearly_a_devices(device: bytes) -> None:
    result = rejected(own_bench().judge(make_alert(device=device), NOW))
    assert result.refusal is Refusal.DEVICE


def test_3_another_devices_key_and_no_key() -> None:
    assert rejected(own_bench().judge(make_alert(hmac_key=b"k" * 32), NOW)).refusal is Refusal.HMAC
    zero = rejected(own_bench().judge(make_alert(hmac_key=None), NOW))
    assert zero.refusal is Refusal.HMAC
    assert "zero" in zero.detail


def test_4_another_verifiers_key() -> None:
    result = rejected(own_bench().judge(make_alert(signing_key=other_key), NOW))
    assert result.refusal is Refusal.SIGNATURE
    assert result.device == "cam-1"
    assert not result.authentic


def test_5_another_verifiers_name() -> None:
    result = rejected(own_bench().judge(make_alert(verifier_id=b"RAP_\nServer"), NOW))
    assert result.refusal is Refusal.VERIFIER
    assert r"RAP_\x0aServer" in result.detail
    assert not result.authentic


# --- steps 6 to 9 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "timeliness"),
    [
        (-WINDOW_PAST - 1, Timeliness.STALE),
        (-WINDOW_PAST, Timeliness.FRESH),
        (0, Timeliness.FRESH),
        (WINDOW_FUTURE, Timeliness.FRESH),
        (WINDOW_FUTURE + 1, Timeliness.FUTURE),
    ],
)
@pytest.mark.parametrize("reason", list(Reason))
def test_6_the_window(reason: Reason, offset: int, timeliness: Timeliness) -> None:
    result = own_bench().judge(make_alert(reason, NOW + offset), NOW)
    if timeliness is Timeliness.FRESH or reason in LOWERING:
        assert verdict(result).timeliness is timeliness
    else:
        assert rejected(result).refusal is Refusal.FRESHNESS
        assert rejected(result).authentic


def test_6_the_edges_are_those_of_the_exact_time() -> None:
    assert isinstance(own_bench().judge(make_alert(), NOW + WINDOW_PAST + 0.001), Rejected)
    assert isinstance(own_bench().judge(make_alert(), NOW - WINDOW_FUTURE - 0.001), Rejected)


def test_6_the_window_is_the_sources() -> None:
    bench = own_bench()
    source = dataclasses.replace(bench.authenticator._source, window_past=10)
    bench = dataclasses.replace(bench, authenticator=SedimentAuthenticator(source, bench.authenticator._hmac_keys))
    assert isinstance(bench.judge(make_alert(), NOW + 10), Verdict)
    assert isinstance(bench.judge(make_alert(), NOW + 11), Rejected)


SEEN = Record(Standing.TRUSTED, NOW + 900.0, newest=NOW, nonces=(b"a" * 32, b"n" * 32))


@pytest.mark.parametrize("reason", sorted(RAISING | LOWERING))
def test_7_an_exact_replay_is_named_replay(reason: Reason) -> None:
    result = rejected(own_bench(SEEN).judge(make_alert(reason), NOW + 1))
    assert result.refusal is Refusal.REPLAY
    assert result.authentic


def test_8_a_second_pass_of_the_same_second_is_out_of_order() -> None:
    result = rejected(own_bench(SEEN).judge(make_alert(nonce=b"x" * 32), NOW))
    assert (result.refusal, result.authentic) == (Refusal.ORDER, True)


def test_8_a_pass_of_the_second_of_a_failure() -> None:
    record = Record(Standing.SUSPECT, epoch=NOW)
    result = rejected(own_bench(record).judge(make_alert(), NOW))
    assert (result.refusal, result.authentic) == (Refusal.ORDER, True)
    assert isinstance(own_bench(record).judge(make_alert(issued_at=NOW + 1), NOW), Verdict)


@pytest.mark.parametrize("reason", sorted(LOWERING))
def test_8_a_failure_ties_with_a_pass_and_wins(reason: Reason) -> None:
    assert verdict(own_bench(SEEN).judge(make_alert(reason, nonce=b"x" * 32), NOW)).timeliness is Timeliness.FRESH


@pytest.mark.parametrize("reason", sorted(LOWERING))
def test_8_a_failure_overtaken_by_a_pass_is_late(reason: Reason) -> None:
    assert verdict(own_bench(SEEN).judge(make_alert(reason, NOW - 1), NOW)).timeliness is Timeliness.LATE


@pytest.mark.parametrize("reason", sorted(LOWERING))
def test_8_a_failure_that_is_accounted_for(reason: Reason) -> None:
    record = Record(Standing.DISTRUSTED, epoch=NOW, debt=2)
    for issued_at in (NOW, NOW - 1, NOW - WINDOW_PAST - 1):
        result = rejected(own_bench(record).judge(make_alert(reason, issued_at), NOW))
        assert (result.refusal, result.authentic) == (Refusal.ORDER, True)
        assert "already counted" in result.detail


def test_8_a_failure_without_a_date_still_counts() -> None:
    assert verdict(own_bench().judge(make_alert(Reason.FAILED_ATTEST, 0), NOW)).timeliness is Timeliness.STALE


def test_9_a_retired_device_is_not_raised_but_its_failures_count() -> None:
    bench = own_bench(Record(Standing.RETIRED))
    result = rejected(bench.judge(make_alert(), NOW))
    assert (result.refusal, result.authentic) == (Refusal.RETIRED, True)
    assert isinstance(bench.judge(make_alert(Reason.FAILED_ATTEST), NOW), Verdict)


def marks() -> list[Record]:
    nonces: list[tuple[bytes, ...]] = [(), (b"n" * 32,)]
    times = (0, NOW - 200, NOW - 1, NOW, NOW + 1, NOW + 200)
    return [
        Record(standing, newest=newest, nonces=seen, epoch=epoch)
        for standing, newest, seen, epoch in product(Standing, times, nonces, times)
    ]


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("issued_at", [NOW - 200, NOW - 1, NOW, NOW + 1, NOW + 200])
def test_strict_and_lenient_over_all_marks(reason: Reason, issued_at: int) -> None:
    frame = make_alert(reason, issued_at)
    bench = own_bench()
    bench.authenticator._verify = lambda *_: None
    in_window = abs(issued_at - NOW) <= 1
    for record in marks():
        bench.records[DEVICE] = record
        result = bench.judge(frame, NOW)
        replayed = issued_at == record.newest and b"n" * 32 in record.nonces
        if reason in RAISING:
            newer = issued_at > max(record.newest, record.epoch)
            assert isinstance(result, Verdict) == (in_window and newer and record.standing is not Standing.RETIRED)
        elif reason in LOWERING:
            counted = record.epoch != 0 and issued_at <= record.epoch
            assert isinstance(result, Rejected) == (replayed or counted)
        else:
            assert isinstance(result, Verdict) == in_window
        if isinstance(result, Rejected):
            assert result.authentic
            assert (result.refusal is Refusal.REPLAY) == (
                replayed and reason in LOWERING | (RAISING if in_window else set())
            )
        elif reason in LOWERING:
            overtaken = in_window and issued_at < record.newest
            assert (result.timeliness is Timeliness.LATE) == overtaken
            assert (result.timeliness is Timeliness.FRESH) == (in_window and not overtaken)


# --- claims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "endpoint", "claim"),
    [
        (Reason.PASS, Endpoint(Protocol.TCP, b"192.0.2.7", 25740), "tcp:192.0.2.7:35940"),
        (Reason.FAILED_ATTEST, Endpoint(Protocol.UDP, b"192.0.2.7", 0x0100), "udp:192.0.2.7:1"),
        (Reason.USER_REJECT, Endpoint(Protocol.TCP, b"192.0.2.7", 25740), "tcp:192.0.2.7"),
        (Reason.INIT, Endpoint(Protocol.BLUETOOTH, b"00:11:22:33:44:55", 1), "bluetooth:00:11:22:33:44:55"),
        (Reason.REQUESTED, REQUESTED_ENDPOINT, ""),
        (Reason.REQUESTED, Endpoint(Protocol.TCP, b"192.0.2.7", 25740), ""),
        (Reason.PASS, REQUESTED_ENDPOINT, ""),
        (Reason.PASS, Endpoint(Protocol.TCP, b"", 1), ""),
        (Reason.PASS, Endpoint(Protocol.TCP, b"1\n2`$(x)\xff", 0), r"tcp:1\x0a2`$(x)\xff:0"),
    ],
)
def test_the_claim(reason: Reason, endpoint: Endpoint, claim: str) -> None:
    assert verdict(own_bench().judge(make_alert(reason, endpoint=endpoint), NOW)).claim == claim


# --- hostile bytes -----------------------------------------------------------------------------------------------


@unhurried
@given(st.binary(max_size=500))
def test_arbitrary_bytes_never_raise(raw: bytes) -> None:
    assert not rejected(own_bench().judge(raw, NOW)).authentic


@unhurried
@given(st.data())
def test_mutated_alerts_never_raise(data: st.DataObject) -> None:
    frame = bytearray(make_alert())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(frame)))
        stop = data.draw(st.integers(start, min(start + 8, len(frame))))
        frame[start:stop] = data.draw(st.binary(max_size=8))
    honest = bytes(frame)
    if len(honest) >= 2 and data.draw(st.booleans()):
        honest = (len(honest) & 0xFFFF).to_bytes(2, "big") + honest[2:]
    result = own_bench().judge(honest, NOW)
    assert honest == make_alert() or isinstance(result, Rejected)


@pytest.mark.parametrize("reason", [Reason.PASS, Reason.FAILED_ATTEST])
def test_no_single_bit_can_be_flipped(reason: Reason) -> None:
    frame = make_alert(reason)
    bench = own_bench()
    assert isinstance(bench.judge(frame, NOW), Verdict)
    for position in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[position // 8] ^= 1 << position % 8
        assert not rejected(bench.judge(bytes(flipped), NOW)).authentic
