"""The attacks on SEDIMENT that reach a consumer of its alerts, replayed here: each is refused or contained.

The numbers are those of the protocol notes' list "what is not authenticated". Not here, because no alert carries
them: 3 and 4 (evidence), 5 (lost alerts: every standing has a deadline), 6 and 8 (the verifier's own API), 11
(recovery, a matter of the lifecycle).
"""

from __future__ import annotations

from gateway.core.errors import Refusal
from gateway.core.lifecycle import Rules, event_of, step
from gateway.core.model import Effect, Outcome, Record, Rejected, Standing, Verdict
from gateway.sediment.compose import compose_message
from gateway.sediment.keys import is_published_hmac_key, is_published_signing_key
from gateway.sediment.wire import MessageId, Reason
from tests.sediment.recorded import (
    DEVICE,
    HMAC_KEY,
    NOW,
    Bench,
    make_alert,
    messages,
    of_kind,
    own_bench,
    published_hmac_keys,
    published_key,
    recorded_bench,
)


def take(bench: Bench, frame: bytes, at: float) -> Effect | Refusal:
    """One alert the whole way: authenticated, and if it is a verdict, stepped."""
    result = bench.judge(frame, at)
    if isinstance(result, Rejected):
        return result.refusal
    done = step(bench.records[result.device], event_of(result, at), Rules())
    bench.records[result.device] = done.record
    return done.effect


def test_1_a_replayed_pass_does_not_reopen_a_device_that_failed() -> None:
    bench = own_bench()
    passed, failed = make_alert(), make_alert(Reason.FAILED_ATTEST, NOW + 5, b"f" * 32)
    assert take(bench, passed, NOW) is Effect.RAISED
    assert take(bench, passed, NOW) is Refusal.REPLAY
    assert take(bench, failed, NOW + 5) is Effect.LOWERED
    for at in (NOW + 5, NOW + 6, NOW + 60):
        assert take(bench, passed, at) is Refusal.ORDER
    assert take(bench, passed, NOW + 1_000) is Refusal.FRESHNESS
    assert bench.records[DEVICE].standing is Standing.DISTRUSTED


def test_1_a_pass_withheld_until_after_the_failure_does_not_reopen_either() -> None:
    bench = own_bench()
    withheld = make_alert(issued_at=NOW + 1)
    assert take(bench, make_alert(Reason.FAILED_ATTEST, NOW + 1, b"f" * 32), NOW + 1) is Effect.LOWERED
    assert take(bench, withheld, NOW + 2) is Refusal.ORDER
    assert bench.records[DEVICE].standing is Standing.DISTRUSTED


def test_1_a_replayed_failure_does_not_cut_a_device_that_recovered() -> None:
    bench = own_bench()
    failed = make_alert(Reason.FAILED_ATTEST, NOW, b"f" * 32)
    take(bench, failed, NOW)
    take(bench, make_alert(issued_at=NOW + 1), NOW + 1)
    take(bench, make_alert(issued_at=NOW + 2), NOW + 2)
    assert bench.records[DEVICE].standing is Standing.TRUSTED
    assert take(bench, failed, NOW + 3) is Refusal.ORDER
    assert bench.records[DEVICE].standing is Standing.TRUSTED


def reheaded(frame: bytes, issued_at: int, nonce: bytes, key: bytes) -> bytes:
    return compose_message(
        message_id=MessageId.ALERT, timestamp=issued_at, nonce=nonce, tail=frame[75:], hmac_key=key
    )


def test_2_reheading_works_for_the_holder_of_the_hmac_key_and_for_nobody_else() -> None:
    """Timestamp and nonce are under the device's own key only, so authentication cannot see this.

    What contains it: the door takes alerts from the verifier's addresses only, and after a failure one pass is
    not enough.
    """
    bench = own_bench()
    old = make_alert()
    take(bench, make_alert(Reason.FAILED_ATTEST, NOW + 200, b"f" * 32), NOW + 200)
    stranger = reheaded(old, NOW + 300, b"s" * 32, b"another key of thirty-two bytes.")
    assert take(bench, stranger, NOW + 300) is Refusal.HMAC
    device = reheaded(old, NOW + 300, b"d" * 32, HMAC_KEY)
    assert isinstance(bench.judge(device, NOW + 300), Verdict)
    take(bench, device, NOW + 300)
    assert bench.records[DEVICE].standing is Standing.DISTRUSTED  # the recovery rule: one pass does not admit


def test_2_reheading_cannot_change_what_was_signed() -> None:
    bench = own_bench()
    failed = make_alert(Reason.FAILED_ATTEST)
    tail = bytearray(failed[75:])
    tail[tail.index(b"RAP_Server") + 10] = Reason.PASS
    forged = compose_message(
        message_id=MessageId.ALERT, timestamp=NOW, nonce=b"x" * 32, tail=bytes(tail), hmac_key=HMAC_KEY
    )
    assert take(bench, forged, NOW) is Refusal.SIGNATURE


def test_2_a_passport_is_not_an_alert_though_one_key_signs_both() -> None:
    bench = recorded_bench()
    for kind in ("GRANT", "PASSPORT_CHECK"):
        for message in of_kind(kind, ("pass", "full-session")):
            at = message.about["captured_at"]
            result = bench.judge(message.frame, at)
            assert isinstance(result, Rejected)
            assert result.refusal is Refusal.KIND
            device = message.about["device_id"]
            key = published_hmac_keys()[device]
            as_alert = reheaded(message.frame, int(at), b"x" * 32, key)
            retold = bench.judge(as_alert, at)
            assert isinstance(retold, Rejected)
            assert retold.refusal in {Refusal.LENGTHS, Refusal.SIGNATURE}


def test_7_requested_which_anyone_can_have_signed_changes_no_standing_and_no_order() -> None:
    trusted = Record(Standing.TRUSTED, NOW + 900.0, newest=NOW, nonces=(b"p" * 32,))
    for standing in Standing:
        bench = own_bench(trusted._replace(standing=standing))
        before = bench.records[DEVICE]
        for count in range(3):
            frame = make_alert(Reason.REQUESTED, NOW + 1, bytes((count,)) * 32)
            result = bench.judge(frame, NOW + 1)
            assert isinstance(result, Verdict)
            assert result.outcome is Outcome.REQUESTED
            take(bench, frame, NOW + 1)
            take(bench, frame, NOW + 1)
        assert bench.records[DEVICE] == before


def test_7_hostile_ids_stay_outside() -> None:
    bench = recorded_bench()
    before = dict(bench.records)
    for message in messages("requested"):
        take(bench, message.frame, message.about["captured_at"])
    assert bench.records == before


def test_9_the_published_keys_are_known() -> None:
    assert is_published_signing_key(published_key())
    assert all(map(is_published_hmac_key, published_hmac_keys().values()))


def test_10_what_the_original_parser_takes_is_refused() -> None:
    """Bytes behind the signature (taken by SEDIMENT's relying party), several frames in one, other lengths."""
    frame = make_alert()
    for tail in (b"\x00", b"\x00" * 7, frame):
        size = (len(frame) + len(tail)).to_bytes(2, "big")
        trailing = compose_message(
            message_id=MessageId.ALERT, timestamp=NOW, nonce=b"n" * 32, tail=frame[75:] + tail, hmac_key=HMAC_KEY
        )
        assert trailing[:2] == size
        assert take(own_bench(), trailing, NOW) is Refusal.LENGTHS
        assert take(own_bench(), frame + tail, NOW) is Refusal.FRAMING
    for number in (0, 10, 255):
        body = bytearray(frame[75:])
        body[body.index(b"RAP_Server") + 10] = number
        unknown = compose_message(
            message_id=MessageId.ALERT, timestamp=NOW, nonce=b"n" * 32, tail=bytes(body), hmac_key=HMAC_KEY
        )
        assert take(own_bench(), unknown, NOW) is Refusal.LENGTHS
