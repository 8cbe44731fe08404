"""The table, its guards, and the answers, against what SEDIMENT's own relying party was recorded to answer."""

from __future__ import annotations

import hmac
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import DeviceId
from gateway.sediment.authenticate import SedimentSource
from gateway.sediment.bodies import decode
from gateway.sediment.compose import compose_message
from gateway.sediment.relying import (
    BESIDE,
    CARRIED_KINDS,
    DEVICE_KINDS,
    HEARD_KINDS,
    TABLE,
    Answer,
    Case,
    Conversation,
    Heard,
    Party,
    Word,
    case_of,
    step_of,
)
from gateway.sediment.wire import HMAC_START, Endpoint, Header, MessageId, Protocol
from tests.fuzz.mutants import mutants
from tests.sediment.recorded import (
    SOURCE,
    VERIFIER_ID,
    Message,
    messages,
    published_hmac_keys,
    published_key,
    refusal_of,
    unhurried,
)

SESSIONS = ("pass", "full-session", "failed-record-altered-on-demand")
TEXT = (
    b"report_interval 2\nenc_enabled true\nauth_enabled true\nattest_enabled true\nseec_enabled false\n"
    b"sign_enabled true\npassport_period 86400\npayload_size 48\nfixed_delay 1\npass_thru_enabled false\n"
    b"num_cycles 5\niterations 10\ntransport sediment\nlog_level 8\nmqtt_url 127.0.0.1\0"
)
PARTY = Party(Endpoint(Protocol.TCP, b"127.0.0.1", 18_100), Endpoint(Protocol.TCP, b"127.0.0.1", 18_001), TEXT)
ANSWERS = {
    "CONFIG": Answer.CONFIG,
    "PASSPORT_REQUEST": Answer.VERIFIER,
    "PASSPORT_CHECK": Answer.PERMISSION,
}
RESULTS = {"ACCEPT": Answer.ACCEPT, "REJECT": Answer.REJECT, "ATTEST": Answer.ATTEST, "NO_COMM": Answer.ACCEPT}


def recorded_party(party: Party = PARTY) -> Conversation:
    source = SedimentSource(SOURCE, published_key(), VERIFIER_ID)
    keys = published_hmac_keys()
    return Conversation(party, keys, dict.fromkeys(keys, source))


def exchanges() -> list[tuple[Message, Message]]:
    """Every recorded message of a device to its relying party, with the answer that followed on its connection."""
    found = []
    for file in SESSIONS:
        lines = messages(file)
        for number, asked in enumerate(lines):
            if (asked.about["from"], asked.about["to"]) != ("prover", "firewall"):
                continue
            same = (one for one in lines[number + 1 :] if one.about["conn"] == asked.about["conn"])
            answered = next((one for one in same if one.about["from"] == "firewall"), None)
            if answered is not None:
                found.append((asked, answered))
    return found


def test_every_kind_has_a_row_for_every_case_that_its_guards_can_find() -> None:
    header = Header(0, b"", b"", MessageId.DUMMY, 0, b"")
    truths = (False, True)
    for beside in truths:
        table = BESIDE if beside else TABLE
        found = {(MessageId.ALERT, Case.VERIFIER), (MessageId.ALERT, Case.STRANGER)}
        for kind, said in product(DEVICE_KINDS, product(truths, repeat=5)):
            admitted, wanted, repeated, slowed, forged = said
            heard = Heard(kind, DeviceId("a"), header, b"", (Refusal.SIGNATURE, "no") if forged else None)
            case = case_of(heard, Word(admitted, wanted, repeated, slowed), beside=beside)
            step_of(kind, case, beside=beside)
            found.add((kind, case))
        assert found == set(table)  # and no row that can never be


def test_nothing_is_carried_for_a_device_that_is_not_admitted() -> None:
    for table in (TABLE, BESIDE):
        for (kind, case), step in table.items():
            if kind in CARRIED_KINDS:
                assert step.forward == (case is Case.ADMITTED)
    assert {kind for kind, _ in TABLE} == HEARD_KINDS == {kind for kind, _ in BESIDE}


def test_recorded_exchanges_are_there() -> None:
    kinds = [asked.kind for asked, _ in exchanges()]
    assert {kind: kinds.count(kind) for kind in set(kinds)}.keys() >= {"CONFIG", "PASSPORT_REQUEST", "DATA"}
    assert len(kinds) > 90


@pytest.mark.parametrize(("asked", "answered"), exchanges(), ids=lambda m: m.name)
def test_every_recorded_answer_byte_for_byte(asked: Message, answered: Message) -> None:
    """With the recorded nonce and second, which are SEDIMENT's to choose, all other bytes are the same."""
    party = recorded_party()
    heard = party.hear(asked.frame, asked.about["captured_at"])
    assert heard.fault is None
    header = decode(answered.frame).header
    wanted = RESULTS[answered.fields["acceptance"]] if asked.kind == "DATA" else ANSWERS[asked.kind]
    taken = asked.kind != "DATA" or answered.fields["acceptance"] != "NO_COMM"
    assert party.answer(heard, wanted, header.nonce, header.timestamp, taken=taken) == answered.frame


def test_without_settings_to_hand_out_the_answer_is_a_dummy() -> None:
    party = recorded_party(PARTY.__class__(PARTY.verifier, PARTY.here))
    asked = next(one for one in messages("pass") if one.kind == "CONFIG")
    answer = decode(party.answer(party.hear(asked.frame, 0.0), Answer.CONFIG, bytes(32), 7))
    assert answer.header.message_id is MessageId.DUMMY
    assert answer.header.device == asked.frame[76:86]


@pytest.mark.parametrize(
    "kind", ["PASSPORT_RESPONSE", "GRANT", "RESULT", "PERMISSION", "DUMMY", "EVIDENCE", "ALERT"]
)
def test_what_no_device_says_to_a_relying_party_is_refused(kind: str) -> None:
    frame = next(one.frame for file in SESSIONS for one in messages(file) if one.kind == kind)
    assert refusal_of(lambda: recorded_party().hear(frame, 0.0)) is Refusal.KIND


def test_no_message_is_heard_without_its_devices_hmac() -> None:
    party = recorded_party()
    for asked, _ in exchanges():
        for frame in (
            asked.frame[:4] + bytes(32) + asked.frame[36:],  # as a device without keys sends it
            asked.frame[:-1] + bytes((asked.frame[-1] ^ 1,)),
            asked.frame[:71] + b"\0\0\0\1" + asked.frame[75:],  # another second
            asked.frame[:38] + bytes(32) + asked.frame[70:],  # another nonce
        ):
            with pytest.raises(InputRefused) as caught:
                party.hear(frame, asked.about["captured_at"])
            assert caught.value.refusal in (Refusal.HMAC, Refusal.LENGTHS)


def test_another_devices_name_needs_another_devices_key() -> None:
    asked = next(one for one in messages("pass") if one.kind == "CONFIG")
    keys = published_hmac_keys()
    mine = keys[DeviceId(asked.frame[76:86].decode())]
    for device in keys:
        tail = bytes((len(device),)) + device.encode() + bytes(4)
        frame = compose_message(message_id=MessageId.CONFIG, timestamp=1, nonce=bytes(32), tail=tail, hmac_key=mine)
        same = keys[device] == mine
        assert (refusal_of(lambda: recorded_party().hear(frame, 0.0)) is None) == same  # noqa: B023


@pytest.mark.parametrize("device", [b"", b"x" * 255, b"Ubuntu-001 ", b"Ubuntu-00\xd9\xa1", b"' OR 1=1 --", b"\0"])
def test_a_device_that_is_not_in_the_inventory_is_refused_whatever_it_is_called(device: bytes) -> None:
    tail = bytes((len(device),)) + device + bytes(4)
    frame = compose_message(
        message_id=MessageId.CONFIG, timestamp=1, nonce=bytes(32), tail=tail, hmac_key=bytes(32)
    )
    with pytest.raises(InputRefused) as caught:
        recorded_party().hear(frame, 0.0)
    assert caught.value.refusal is Refusal.DEVICE
    assert caught.value.detail.isascii()
    assert len(caught.value.detail) < 120


def test_a_recorded_passport_is_good_until_its_end_and_not_a_second_longer() -> None:
    asked = next(one for one in messages("full-session") if one.kind == "PASSPORT_CHECK")
    end = asked.fields["passport"]["expire"]
    party = recorded_party()
    assert party.hear(asked.frame, end + 0.9).fault is None
    fault = party.hear(asked.frame, end + 1.0).fault
    assert fault is not None
    assert fault[0] is Refusal.FRESHNESS


@unhurried
@given(st.sampled_from(exchanges()).flatmap(lambda pair: mutants(pair[0].frame)))
def test_only_declared_refusals_escape_and_what_is_heard_is_authentic(frame: bytes) -> None:
    party = recorded_party()
    try:
        heard = party.hear(frame, 0.0)
    except InputRefused:
        return
    key = published_hmac_keys()[heard.device]
    assert hmac.digest(key, frame[HMAC_START:], "sha256") == frame[4:HMAC_START]
