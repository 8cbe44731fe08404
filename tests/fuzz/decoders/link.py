"""What agents and the gateway say to each other, the hook's script and its door, and the journal's rows."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from gateway.agentlink import messages, packing
from gateway.agentlink.messages import (
    Beat,
    Damage,
    Done,
    Failed,
    Hello,
    LinkProtocolError,
    Look,
    Plan,
    Ready,
    Seen,
    Unable,
    Welcome,
    Work,
    encode,
    read_from_agent,
    read_from_gateway,
    read_plan,
)
from gateway.agentlink.packing import unpack_addresses, unpack_done, unpack_seen, unpack_work
from gateway.core.model import Address, Change, ChangeKind, Transition
from gateway.core.policy import Override
from gateway.intake.hook.send import hand_in
from gateway.journal import rows
from tests.fuzz.decoders.shape import Attempt, Target
from tests.journal import samples

IPV4, IPV6 = Address.parse("10.77.1.11"), Address.parse("fd77:1:0:5::/64")
CHANGES = [Change(ChangeKind.ADMIT, IPV4, "admitted", 160.0), Change(ChangeKind.CUT, IPV6)]
PLAN = Plan(
    (("feed", "10.77.3.2", 8001, "tcp", ("admitted",)),),
    (("10.77.2.2", 8100, "udp"),),
    ("10.77.9.0/24",),
    ("admitted", "probation"),
    {"probation": (5, 60)},
    ((IPV4.packed, 32), (IPV6.packed, 64)),
)
NOW, LEASE = 100.0, 120.0
DECLARED = (msgspec.MsgspecError, ValueError)


def _from_agent() -> Attempt:
    def attempt(data: bytes) -> None:
        with suppress(LinkProtocolError):
            message = read_from_agent(data)
            assert repr(read_from_agent(encode(message))) == repr(message)
            if isinstance(message, Done):
                outcomes = unpack_done(message, CHANGES, NOW)
                assert [outcome.change for outcome in outcomes] == CHANGES
                assert all(len(outcome.detail) <= messages.SENTENCE for outcome in outcomes)
            elif isinstance(message, Seen):
                assert set(unpack_seen(message, [IPV4, IPV6])) == {IPV4, IPV6}

    return attempt


def _from_gateway() -> Attempt:
    def attempt(data: bytes) -> None:
        with suppress(LinkProtocolError):
            message = read_from_gateway(data)
            assert repr(read_from_gateway(encode(message))) == repr(message)
            if isinstance(message, Work):
                changes = unpack_work(message, NOW, LEASE)
                assert len(changes) == len(message.changes)
                for change in changes:
                    if change.kind in (ChangeKind.ADMIT, ChangeKind.REFRESH):
                        assert not message.cut, "the cut lane opens nothing"
                        assert change.until <= NOW + LEASE, "nothing stands longer than the lease"
                        assert not math.isnan(change.until)
            elif isinstance(message, Look):
                assert len(unpack_addresses(message.addresses)) == len(message.addresses)
        with suppress(LinkProtocolError):
            plan = read_plan(data)
            assert read_plan(encode(plan)) == plan

    return attempt


def _agent_seeds() -> Sequence[bytes]:
    return [
        encode(message)
        for message in (
            Hello((1,), "0.1.0", "b" * 36, 99.5, "", b"n" * 32, "nft"),
            Ready("nft", found=True),
            Unable("no nft"),
            Beat(99.5, 100.5, {"cpu": 0.5}, {"kubearmor": "ready"}),
            Done(1, b"", {}, 100.5),
            Done(1, b"\1\2", {1: "why"}, 0.0),
            Seen(2, (("admitted", 60_000, False), ("", -1, True))),
            Failed(3, "no", transient=True),
            Damage("the table was gone"),
        )
    ]


def _gateway_seeds() -> Sequence[bytes]:
    return [
        encode(Welcome(1, "0.1.0", b"certificate", b"proof", LEASE, "d" * 64, PLAN)),
        encode(Welcome(1, "0.1.0", b"certificate", b"proof", LEASE, "d" * 64, None)),
        encode(packing.pack_work(1, CHANGES, 100.0, 99.0, cut=False)),
        encode(packing.pack_work(1, CHANGES[1:], 100.0, 99.0, cut=True)),
        encode(Look(2, packing.pack_addresses([IPV4, IPV6]))),
        encode(PLAN),
    ]


def _script() -> Attempt:
    """Nobody listens: whatever the arguments, it ends at once with a code and never with a traceback."""

    def attempt(data: bytes) -> None:
        arguments = data.split(b"\n")
        path = arguments.pop().decode("utf-8", "surrogateescape") if len(arguments) == 4 else "/nowhere/hook.sock"
        if path.startswith(("/nowhere", "\0")) or "/" not in path:
            code, said = hand_in(arguments, path)
            assert code
            assert said

    return attempt


def _stored() -> Attempt:
    template = rows.StoredRow(1, samples.WALL, rows.TRANSITION, "cam-1", "verifier", "", None, None)

    def attempt(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        with suppress(*DECLARED):
            record = rows.decode_record(text)
            if record.deadline is None or math.isfinite(record.deadline):
                assert rows.decode_record(rows.encode_record(record)) == record
        with suppress(*DECLARED):
            assert isinstance(rows.decode_override("cam-1", text), Override)
        body, _, record_text = text.partition("\n")
        row = template._replace(body=body, record=record_text or None)
        with suppress(*DECLARED):
            assert isinstance(rows.decode_transition(row), Transition)

    return attempt


def _row_seeds() -> Sequence[bytes]:
    found = []
    for entry in (samples.passed(), samples.failed()):
        assert isinstance(entry.fact, Transition)
        assert not isinstance(entry.record, Override)
        row = rows.encode_entry(1, entry.fact, entry.record, samples.WALL)
        found += [(row.record or "").encode(), f"{row.body}\n{row.record or ''}".encode(), row.body.encode()]
    return [*found, b'{"profile":"deny","until":1.0,"actor":"unix:0","reason":"r"}']


FLOATS = tuple(b"\xcb" + struct.pack(">d", number) for number in (math.nan, math.inf, -math.inf, 1e308, 99.0))
PACKED = (*FLOATS, b"\xc4\x04", b"\xc4\x10", b"\x20", b"\x40", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7))
ROW_WORDS = (
    b'"standing":"', b'"event":"', b'"effect":"', b'"before":{', b'"nonces":["', b'"deadline":', b"1e400", b"null",
    b'"suspected_since":', b"\n", b'"after":', b'"issued_at":',
)  # fmt: skip

TARGETS = (
    Target("link.from-agent", ("gateway.agentlink.messages",), _from_agent, _agent_seeds, PACKED),
    Target("link.from-gateway", ("gateway.agentlink.messages",), _from_gateway, _gateway_seeds, PACKED),
    Target(
        "link.hook-script",
        ("gateway.intake.hook.send",),
        _script,
        lambda: [b"cam-1\n10.77.1.11\nFAILED_ATTEST", b"cam-1\n10.77.1.11\nPASS\n/nowhere/x", b"\n\n"],
        (b"\n", b"\0", b"/nowhere"),
    ),
    Target("link.journal-rows", ("gateway.journal.rows",), _stored, _row_seeds, ROW_WORDS),
)
