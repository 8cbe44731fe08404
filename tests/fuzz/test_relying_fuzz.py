"""The other messages and the relying party's conversation, with a large budget."""

from __future__ import annotations

import hmac
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused
from gateway.sediment.bodies import decode, encode
from gateway.sediment.relying import Word, case_of, step_of
from gateway.sediment.replay import REMEMBERED, ReplayMemory
from gateway.sediment.wire import HMAC_START
from tests.fuzz.mutants import honest, mutants
from tests.sediment.recorded import VALID, messages, published_hmac_keys
from tests.sediment.test_bodies import anything
from tests.sediment.test_relying import exchanges, recorded_party

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(1_800)]


@cache
def one_of_each() -> tuple[bytes, ...]:
    """A recorded message of each kind."""
    return tuple({message.kind: message.frame for file in VALID for message in messages(file)}.values())


recorded = st.deferred(lambda: st.sampled_from(one_of_each()).flatmap(mutants))
made = anything.flatmap(lambda message: mutants(encode(message)))


@given(recorded | made | st.binary(max_size=600), st.booleans())
def test_what_is_decoded_is_the_only_encoding_of_itself(frame: bytes, tell_the_size: bool) -> None:
    frame = honest(frame) if tell_the_size else frame
    with suppress(InputRefused):
        message = decode(frame)
        event(f"decoded: {message.header.message_id.name}")
        assert encode(message) == frame


@cache
def asked() -> tuple[bytes, ...]:
    return tuple({pair[0].kind: pair[0].frame for pair in exchanges()}.values())


@given(
    st.deferred(lambda: st.sampled_from(asked()).flatmap(mutants)),
    st.booleans(),
    st.sampled_from(sorted(published_hmac_keys().items())),
    st.tuples(*[st.booleans()] * 4),
    st.floats(0, 2**32),
)
def test_whoever_holds_a_key_gets_an_answer_or_a_refusal_and_nothing_else(
    frame: bytes, with_a_key: bool, key: tuple[str, bytes], word: tuple[bool, bool, bool, bool], now: float
) -> None:
    if with_a_key and len(frame) > HMAC_START:
        frame = honest(frame)
        frame = frame[:4] + hmac.digest(key[1], frame[HMAC_START:], "sha256") + frame[HMAC_START:]
    party = recorded_party()
    try:
        heard = party.hear(frame, now)
    except InputRefused as refused:
        event(f"refused: {refused.refusal.value}")
        return
    for beside in (False, True):
        case = case_of(heard, Word(*word), beside=beside)
        step = step_of(heard.kind, case, beside=beside)
        event(f"{heard.kind.name}: {case.name}")
        if step.answer is not None:
            answer = decode(party.answer(heard, step.answer, bytes(32), int(now)))
            assert answer.header.device == heard.header.device


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.sampled_from("abc")), max_size=400))
def test_nothing_is_ever_taken_twice(sent: list[tuple[int, int, str]]) -> None:
    memory, taken = ReplayMemory(0.0, 2.0), set()
    for stamp, number, device in sent:
        nonce = bytes((number,)) * 32
        if memory.judge(device, stamp, nonce, 30.0) is None:
            assert (stamp, number, device) not in taken
            assert 2 < stamp <= 32
            taken.add((stamp, number, device))
            memory.remember(device, stamp, nonce)
        assert len(memory) <= 3 * (REMEMBERED + 4)
