"""Fuzzing of everything that unsigned sources send: the feed, the hook's message, the API's answer, a table."""

from __future__ import annotations

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.csv_import import COLUMNS, import_csv
from gateway.config.sealing import HEAD, Sealing, opened, seal
from gateway.config.values import Inventory
from gateway.core.errors import ConfigError, InputRefused, Refusal
from gateway.core.model import (
    Address,
    AnchorKind,
    Binding,
    DeviceId,
    Envelope,
    Hint,
    Instant,
    Rejected,
    SourceName,
)
from gateway.sediment.api import claimed_address, read_answer
from gateway.sediment.feed import HEAD as FRAME_HEAD
from gateway.sediment.feed import PAYLOAD_MOST, FeedFramer
from gateway.sediment.hints import REASONS, FeedHints, HookHints
from tests.fakes.verifier import frame

pytestmark = pytest.mark.fuzz

NOW = Instant(1_795_283_400.0, 1_000.0)
HOOK, FEED, VERIFIER = SourceName("hook"), SourceName("verifier.feed"), SourceName("verifier")
CAM = DeviceId("cam-1")
BINDINGS = {CAM: Binding(CAM, (Address.parse("10.77.1.11"),), AnchorKind.L2)}
GOOD_HINT = b"cam-1\x0010.77.1.11\x00FAILED_ATTEST"
GOOD_FRAME = frame("cam-1", "incorrect")
PIECES = st.sampled_from([b"cam-1", b"10.77.1.11", b"\0", b",", b"incorrect", b"correct", b"0.000000", *REASONS])
NEAR = st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join)


def mutated(chance: random.Random, data: bytes, times: int) -> bytes:
    for _ in range(times):
        at = chance.randrange(len(data) + 1)
        piece = bytes(chance.choices(range(256), k=chance.choice([0, 1, 1, 2, 8])))
        data = data[:at] + piece + data[at + chance.choice([0, 1, 3]) :]
    return data


def check(result: Hint | Rejected, data: bytes) -> None:
    if isinstance(result, Rejected):
        assert result.refusal in {Refusal.LENGTHS, Refusal.DEVICE, Refusal.BINDING}
        assert result.detail.isprintable()
        assert len(result.detail) < 300
        assert len(result.device) <= 64
    else:
        # Nobody is ever named but by the very bytes of an id and of an address of its own.
        assert result.device == CAM
        assert data.startswith(b"cam-1")


@given(st.binary(max_size=900) | NEAR)
def test_any_message_of_the_hook_is_a_hint_or_refused(data: bytes) -> None:
    hint = HookHints(HOOK, BINDINGS).authenticate(Envelope(data, HOOK, "unix:0", NOW), lambda _device: None)
    check(hint, data)
    if isinstance(hint, Hint):
        assert data.split(b"\0")[1] == b"10.77.1.11"


@given(st.binary(max_size=400) | NEAR)
def test_any_payload_of_the_feed_is_a_hint_or_refused(data: bytes) -> None:
    judge = FeedHints(FEED, VERIFIER, BINDINGS)
    check(judge.authenticate(Envelope(data, FEED, "verifier", NOW), lambda _device: None), data)


@given(st.randoms(use_true_random=False), st.integers(0, 6))
def test_mutants_of_a_good_hint(chance: random.Random, times: int) -> None:
    data = mutated(chance, GOOD_HINT, times)
    judge = HookHints(HOOK, BINDINGS)
    check(judge.authenticate(Envelope(data, HOOK, "unix:0", NOW), lambda _device: None), data)


@given(st.lists(st.binary(max_size=700) | st.just(GOOD_FRAME), max_size=8))
def test_any_stream_is_frames_or_refused_and_bounded(pieces: list[bytes]) -> None:
    framer = FeedFramer()
    fault: InputRefused | None = None
    for piece in pieces:
        try:
            payloads = framer.feed(piece)
        except InputRefused as refused:
            fault = refused
            break
        assert all(len(payload) <= PAYLOAD_MOST for payload in payloads)
        assert framer.pending < FRAME_HEAD + PAYLOAD_MOST
    assert fault is None or fault.refusal is Refusal.FRAMING


@given(st.binary(max_size=200), st.text(max_size=80))
def test_answers_and_claims(answer: bytes, claim: str) -> None:
    found = read_answer(answer)
    assert found is None or 0 <= found.at < 10**10
    address = claimed_address(claim)
    assert address is None or address.family == 4


FIELDS = st.sampled_from(["cam-1", "10.0.0.1", "l2", "a=1;b=2", "15m", "3", "11" * 32, "", '"', ",", "\n", "=x"])


@given(st.lists(st.lists(FIELDS | st.text(max_size=12), max_size=9), max_size=5), st.booleans())
def test_any_table_is_read_or_refused_as_declared(rows: list[list[str]], with_head: bool) -> None:
    lines = [",".join(COLUMNS)] * with_head + [",".join(row) for row in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "devices.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        found, said = None, str(path)
        try:
            found = import_csv(path, (), VERIFIER, Inventory((), {}))
        except ConfigError as error:
            said = str(error)
        assert str(path) in said
        if found is not None:
            assert found.taken == 0  # no source is configured, so every row has a finding
            assert len(found.findings) == found.inventory.count("# left out: ")


@given(st.binary(max_size=200))
def test_no_bytes_but_ours_open(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_text("5a" * 32)
        path.chmod(0o600)
        sealing = Sealing(path)
        with pytest.raises(ConfigError):
            opened(HEAD + data, path, sealing)
        assert opened(seal(data, sealing).encode(), path, sealing) == data
