"""Facts and records as rows, and back. Pure: values in, values out.

What lives here: the encoding (JSON bodies with named fields, so that a field added later has a default in old
rows; nonces in hexadecimal, enums by value) and the plain shapes that windows see. What must not: SQL, files,
threads, or an opinion about a fact.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.control.ports import Entry
from gateway.core.model import (
    DeviceId,
    Effect,
    Enforced,
    Event,
    EventKind,
    Record,
    Rejected,
    SourceName,
    Standing,
    Transition,
)
from gateway.core.policy import Override
from gateway.core.rehearsal import Journalled
from gateway.journal.outcomes import encode_outcome
from gateway.journal.text import label, text

TRANSITION = "transition"
REFUSAL = "refusal"
OUTCOME = "outcome"
LOST = "lost"
NOTE = "note"

NO_SOURCE = ""
"""The source of rows that are a device's and no source's. Their state, where they leave one, is an override."""


class FactRow(NamedTuple):
    """One row to be. ``record`` is the device record it leaves; ``deadline`` that record's, in UNIX seconds, and
    ``until_boot`` the same in boot seconds, where it is known."""

    seq: int
    at: float
    kind: str
    device: str
    source: str
    body: str
    record: str | None = None
    deadline: float | None = None
    until_boot: float | None = None


class StoredRow(NamedTuple):
    """One row as it stands in the file. ``remaining``: seconds the record was still good for at its commit,
    ``until_boot``: when it ends, boot seconds (None in rows of version 1)."""

    seq: int
    at: float
    kind: str
    device: str
    source: str
    body: str
    record: str | None
    remaining: float | None
    until_boot: float | None = None


class Note(NamedTuple):
    """A mapping made ready for its row on the caller's thread. ``state`` is the override that it leaves, as JSON,
    ``until`` that override's end in UNIX seconds."""

    at: float | None
    kind: str
    device: str
    source: str
    body: str
    state: str | None = None
    until: float | None = None


_EVER = math.inf
_NEVER = 0.0
"""The one object that msgspec takes for the default and leaves out: it does not compare floats."""


class _Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    standing: Standing
    deadline: float | None = None
    newest: int = 0
    nonces: tuple[str, ...] = ()
    epoch: int = 0
    debt: int = 0
    paid_at: int = 0
    suspected_since: float = _NEVER
    hold: bool = False
    graced: bool = False


class _Override(msgspec.Struct, frozen=True, gc=False):
    profile: str
    until: float
    actor: str
    reason: str


class _Transition(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    event: EventKind
    effect: Effect
    why: str
    before: _Record
    after: _Record | None = None  # only where it is neither the row's record nor equal to ``before``
    issued_at: int = 0
    valid_until: int | None = None
    nonce: str = ""
    reason: str = ""
    actor: str = ""
    solicited: bool = False
    cut: bool = False


class _Lean(msgspec.Struct, frozen=True, gc=False):
    """What a rehearsal needs of a ``_Transition``, its records as they stand in the text."""

    event: EventKind
    before: msgspec.Raw
    after: msgspec.Raw | None = None
    issued_at: int = 0
    valid_until: int | None = None
    nonce: str = ""
    reason: str = ""
    actor: str = ""
    solicited: bool = False
    cut: bool = False


class _Refusal(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    refusal: str
    detail: str
    peer: str


_json = msgspec.json.Encoder()
_records = msgspec.json.Decoder(_Record)
_overrides = msgspec.json.Decoder(_Override)
_transitions = msgspec.json.Decoder(_Transition)
_lean = msgspec.json.Decoder(_Lean)


# --- records ------------------------------------------------------------------------------------------------


def _to_struct(record: Record) -> _Record:
    deadline, nonces = record.deadline, record.nonces
    if deadline is not None and not math.isfinite(deadline):
        msg = f"a record's deadline must be finite: {record!r}"
        raise ValueError(msg)
    return _Record(
        record.standing,
        deadline,
        record.newest,
        (nonces[0].hex(),) if len(nonces) == 1 else tuple([nonce.hex() for nonce in nonces]),
        record.epoch,
        record.debt,
        record.paid_at,
        record.suspected_since or _NEVER,
        record.hold,
        record.graced,
    )


def _from_struct(row: _Record) -> Record:
    return Record(
        row.standing,
        row.deadline,
        row.newest,
        tuple([bytes.fromhex(nonce) for nonce in row.nonces]) if row.nonces else (),
        row.epoch,
        row.debt,
        row.paid_at,
        row.suspected_since,
        row.hold,
        row.graced,
    )


def encode_record(record: Record) -> str:
    """``record`` as JSON. Raises ``ValueError`` for a deadline that is no finite number."""
    return _json.encode(_to_struct(record)).decode()


def decode_record(text: str) -> Record:
    """The record that ``encode_record`` wrote. Raises ``msgspec.MsgspecError`` or ``ValueError`` otherwise."""
    return _from_struct(_records.decode(text))


def encode_override(word: Override) -> str:
    """An override as JSON, without its device. Raises ``ValueError`` for an end that is no finite number."""
    if not math.isfinite(word.until):
        msg = f"an override's end must be finite: {word!r}"
        raise ValueError(msg)
    return text(_Override(word.profile, word.until, word.actor, word.reason))


def decode_override(device: str, text: str) -> Override:
    """The override that ``encode_override`` wrote. Raises ``msgspec.MsgspecError`` otherwise."""
    row = _overrides.decode(text)
    return Override(DeviceId(device), row.profile, row.until, row.actor, row.reason)


def checksum(device: str, source: str, record: str, remaining: float | None, until_boot: float | None) -> int:
    """CRC-32 that guards a device's state against a damaged file (the digest chain guards the facts).

    Without ``until_boot`` it is what version 1 wrote."""
    times = f"{remaining!r}" if until_boot is None else f"{remaining!r} {until_boot!r}"
    return zlib.crc32(f"{device}\n{source}\n{times}\n{record}".encode())


def times_left(deadline: float, until_boot: float | None, wall: float, boot: float) -> tuple[float, float]:
    """What a row that is committed at these times says of its record: seconds left by the clock that leaves less,
    and boot seconds at which it ends. ``until_boot`` that is none, or no moment: as far away as the deadline."""
    left = deadline - wall
    if until_boot is None or not until_boot < _EVER:
        until_boot = boot + left
    elif until_boot - boot < left:
        left = until_boot - boot
    # Adding 0.0 turns -0.0 into 0.0, as below.
    return left if left > 0 else 0.0, until_boot + 0.0


# --- facts --------------------------------------------------------------------------------------------------


def prepare(fact: Mapping[str, Any], word: Override | None = None) -> Note:
    """A mapping as a row to be. ``at``, ``kind``, ``device`` and ``source`` in it become columns; ``word`` is the
    override that it leaves, whose device it then must name, and no source.

    Raises ``TypeError`` for values that JSON cannot carry, ``ValueError`` for an override that does not fit: the
    caller's mistake, told to the caller.
    """
    at = fact.get("at")
    if word is not None and (fact.get("device") != word.device or fact.get("source")):
        msg = f"a fact that leaves an override names its device and no source: {dict(fact)!r}"
        raise ValueError(msg)
    return Note(
        float(at) + 0.0 if isinstance(at, int | float) and math.isfinite(at) else None,
        label(str(fact.get("kind") or NOTE)),
        label(str(fact.get("device") or "")),
        label(str(fact.get("source") or "")),
        text({key: value for key, value in fact.items() if key not in {"at", "kind", "device", "source"}}),
        None if word is None else encode_override(word),
        None if word is None else word.until,
    )


def encode_entry(
    seq: int,
    fact: Transition | Rejected | Note,
    record: Record | None,
    wall: float,
    until_boot: float | None = None,
) -> FactRow:
    """One entry as the row it becomes. ``wall`` dates a note that carries no time of its own."""
    if isinstance(fact, Transition):
        return _transition_row(seq, fact, record, until_boot)
    state = None if record is None else encode_record(record)
    deadline = None if record is None else record.deadline
    if isinstance(fact, Rejected):
        # Adding 0.0 turns -0.0 into 0.0: SQLite stores it without the sign, and the digest must not notice.
        body = text(_Refusal(fact.refusal.value, fact.detail, fact.peer))
        device, source = label(fact.device), label(fact.source)
        return FactRow(seq, fact.at + 0.0, REFUSAL, device, source, body, state, deadline, until_boot)
    if record is None:
        state, deadline = fact.state, fact.until
    at = wall if fact.at is None else fact.at
    return FactRow(seq, at, fact.kind, fact.device, fact.source, fact.body, state, deadline, until_boot)


def _transition_row(seq: int, fact: Transition, record: Record | None, until_boot: float | None) -> FactRow:
    """Every verdict comes by here: taken apart at once, which is cheaper than one name after the other."""
    device, source, event, before, after, effect, why = fact
    kind, at, issued_at, valid_until, nonce, reason, actor, solicited, cut = event
    told_elsewhere = after is record or after == (before if record is None else record)
    body = _Transition(
        kind,
        effect,
        why,
        _to_struct(before),
        None if told_elsewhere else _to_struct(after),
        issued_at,
        valid_until,
        nonce.hex(),
        reason,
        actor,
        solicited,
        cut,
    )
    row = (
        seq,
        at + 0.0,  # never -0.0
        TRANSITION,
        device if device.isascii() else label(device),
        source if source.isascii() else label(source),
        text(body),
        None if record is None else _json.encode(_to_struct(record)).decode(),
        None if record is None else record.deadline,
        until_boot,
    )
    return tuple.__new__(FactRow, row)  # FactRow(...) costs twice as much


def decode_transition(row: StoredRow) -> Transition:
    """The transition that a row of kind ``transition`` was made of."""
    body = _transitions.decode(row.body)
    before = _from_struct(body.before)
    if body.after is not None:
        after = _from_struct(body.after)
    else:
        after = before if row.record is None else decode_record(row.record)
    event = Event(
        body.event,
        row.at,
        body.issued_at,
        body.valid_until,
        bytes.fromhex(body.nonce),
        body.reason,
        body.actor,
        body.solicited,
        body.cut,
    )
    return Transition(DeviceId(row.device), SourceName(row.source), event, before, after, body.effect, body.why)


class JournalledDecoder:
    """Rows of kind ``transition`` as a rehearsal takes them: ``decode_transition`` without the words.

    Rows come in the journal's order. What a row left is what the next one of the same device met: it is decoded
    once, and is then one object. Remembers one record per (device, source).
    """

    def __init__(self) -> None:
        self._met: dict[tuple[str, str], tuple[bytes, Record]] = {}

    def decode(self, at: float, device: str, source: str, body: str, record: str | None) -> Journalled:
        """One row's columns. Raises ``msgspec.MsgspecError`` or ``ValueError`` for a damaged one."""
        found = _lean.decode(body)
        key = (device, source)
        met = self._met.get(key)
        text = bytes(found.before)
        if met is None or met[0] != text:
            met = (text, _from_struct(_records.decode(text)))
        left = met
        if found.after is not None:
            left = (bytes(found.after), _from_struct(_records.decode(found.after)))
        elif record is not None:
            left = (record.encode(), decode_record(record))
        self._met[key] = left
        event = Event(
            found.event,
            at,
            found.issued_at,
            found.valid_until,
            bytes.fromhex(found.nonce),
            found.reason,
            found.actor,
            found.solicited,
            found.cut,
        )
        return Journalled(DeviceId(device), SourceName(source), event, met[1], left[1])


# --- outcomes -----------------------------------------------------------------------------------------------


def outcome_entry(seq: int, fact: Enforced, wall: float) -> FactRow:
    """An outcome as a row of its own."""
    body = text(encode_outcome(seq, fact)._asdict())
    return FactRow(seq, wall, OUTCOME, label(fact.device), "", body)


def lost_entry(times: int, first: int, last: int, wall: float) -> FactRow:
    """The row that stands for facts the journal could not keep while it was unwritable; it takes the place of the
    last of them."""
    body = {"times": times, "first": first, "last": last, "why": "the journal could not be written for too long"}
    return FactRow(last, wall, LOST, "", "", text(body))


def unauthenticated(entry: Entry) -> bool:
    """Whether an entry is aggregated instead of stored singly."""
    fact = entry.fact
    return isinstance(fact, Rejected) and not fact.authentic and entry.record is None
