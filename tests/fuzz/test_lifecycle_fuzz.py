"""Lifecycle and authentication together, from bytes to standing, against a model that shares no code with them."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.core import lifecycle
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    DENY,
    AnchorKind,
    Binding,
    Device,
    Event,
    EventKind,
    Record,
    SourceName,
    Standing,
    Verdict,
)
from gateway.core.policy import Book, decide
from gateway.sediment.compose import compose_message
from gateway.sediment.wire import MessageId, Reason
from tests.fuzz.mutants import mutants
from tests.sediment.recorded import DEVICE, HMAC_KEY, NOW, Bench, make_alert, own_bench
from tests.soak.model import Kind, Sent, State, Word, after, withheld

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

RULES = Rules()
OF_REASON = {
    Reason.PASS: Kind.PASS,
    Reason.FAILED_ATTEST: Kind.FAIL,
    Reason.FAILED_AUTH: Kind.FAIL,
    Reason.USER_REJECT: Kind.FAIL,
}
BOOK = Book(services=(), node_default="admitted", suspect="deny")
CAMERA = Device(DEVICE, SourceName("verifier"), Binding(DEVICE, (), AnchorKind.UPSTREAM))


@cache
def body(reason: Reason) -> bytes:
    return make_alert(reason)[75:]


class Site(RuleBasedStateMachine):
    """One device over time. Every alert has a nonce and a second of its own; replays come on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.now = float(NOW)
        self.bench: Bench = own_bench()
        self.state = State()
        self.sent: list[tuple[Sent, bytes]] = []
        self.used: set[int] = set()

    @property
    def record(self) -> Record:
        return self.bench.records[DEVICE]

    def take(self, event: Event) -> None:
        self.bench.records[DEVICE] = lifecycle.step(self.record, event, RULES).record

    def receive(self, sent: Sent, frame: bytes) -> None:
        result = self.bench.judge(frame, self.now)
        if isinstance(result, Verdict):
            self.take(lifecycle.event_of(result, self.now))
        self.state = after(self.state, sent, self.now, RULES.max_age)

    @rule(reason=st.sampled_from(Reason), offset=st.integers(-400, 60) | st.integers(-3, 3))
    def alert(self, reason: Reason, offset: int) -> None:
        issued = int(self.now) + offset
        if issued in self.used:
            return
        self.used.add(issued)
        nonce = len(self.used).to_bytes(32, "big")
        frame = compose_message(
            message_id=MessageId.ALERT, timestamp=issued, nonce=nonce, tail=body(reason), hmac_key=HMAC_KEY
        )
        sent = Sent(OF_REASON.get(reason, Kind.NOTE), issued)
        self.sent.append((sent, frame))
        self.receive(sent, frame)

    @rule(which=st.integers(0, 50))
    def replay(self, which: int) -> None:
        if self.sent:
            self.receive(*self.sent[which % len(self.sent)])

    @rule(which=st.integers(0, 50), data=st.data())
    def tamper(self, which: int, data: st.DataObject) -> None:
        """Nothing but the very bytes that were sent moves anything."""
        if not self.sent:
            return
        _, frame = self.sent[which % len(self.sent)]
        mutant = data.draw(mutants(frame, most=2))
        if all(mutant != known for _, known in self.sent):
            assert not isinstance(self.bench.judge(mutant, self.now), Verdict)

    @rule(seconds=st.floats(0.0, 5.0) | st.floats(0.0, 1_000.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.record.deadline is not None and self.record.deadline <= self.now:
            self.take(Event(EventKind.LAPSED, self.now))

    @rule()
    def hold(self) -> None:
        self.take(Event(EventKind.HELD, self.now, reason="fuzz"))
        self.state = after(self.state, Sent(Kind.HOLD), self.now, RULES.max_age)

    @rule()
    def release(self) -> None:
        self.take(Event(EventKind.RELEASED, self.now, reason="fuzz"))
        self.state = after(self.state, Sent(Kind.RELEASE), self.now, RULES.max_age)

    @precondition(lambda self: lifecycle.fold((self.record,))[1] is not None)
    @rule()
    def withhold(self) -> None:
        """As a start does: only what would admit is withheld."""
        self.take(Event(EventKind.WITHHELD, self.now, reason="fuzz"))
        self.state = withheld(self.state, self.now)

    @invariant()
    def the_same(self) -> None:
        record, state = self.record, self.state
        lapsed = state.word is Word.TRUSTED and self.now >= state.ends
        assert record.standing.label == ("lapsed" if lapsed else state.word.value)
        assert (record.epoch, record.debt) == (state.epoch, state.debt)
        standing, deadline = lifecycle.fold((record,))
        decision = decide(CAMERA, standing, deadline, BOOK)
        assert (decision.profile != DENY) == state.trusted(self.now)
        if standing is Standing.TRUSTED:
            assert record.deadline == state.ends


def test_from_bytes_to_standing_as_the_model_says() -> None:
    budget = settings(max_examples=max(1, settings().max_examples // 8), stateful_step_count=60)
    run_state_machine_as_test(Site, settings=budget)
