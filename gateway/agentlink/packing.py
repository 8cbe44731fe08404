"""Changes, outcomes, read-backs and damages as the messages of the link carry them.

Pure: values in, values out; what the other end sent is checked here. What must not live here: encoding, streams,
backends, clocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gateway.agentlink.clocks import DRIFT
from gateway.agentlink.messages import MOST_CHANGES, SENTENCE, Damage, Done, LinkProtocolError, Seen, Work
from gateway.control.ports import Proof, Showing, Strayed
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands

#: Addresses that one message names as changed by somebody else; with more everything is looked at.
MOST_STRAYED = 10_000


_KINDS = tuple(ChangeKind)
_PLACE = {kind: place for place, kind in enumerate(_KINDS)}
_OPENS = frozenset({ChangeKind.ADMIT, ChangeKind.REFRESH})
_STATES = tuple(Applied)
_STATE = {state: place for place, state in enumerate(_STATES)}
#: Milliseconds told of each second that remains: the other clock may be the slower one.
_KEPT_MS = 1_000 * (1 - DRIFT)
_PREFIXES = {32: 4, 128: 16, 64: 16}


def pack_work(number: int, changes: Sequence[Change], now: float, reference: float, *, cut: bool) -> Work:
    """Make the message for ``changes``, whose ends are boot seconds of the gateway, ``now`` among them.

    Remaining times are shortened by what the clocks may drift apart and rounded down, never below -1 ms. At most
    ``MOST_CHANGES``: ``ValueError`` otherwise.
    """
    if len(changes) > MOST_CHANGES:
        msg = f"{len(changes)} changes in one message; at most {MOST_CHANGES}"
        raise ValueError(msg)
    names: dict[str, int] = {}
    packed: list[tuple[int, bytes, int, int, int]] = []
    for kind, address, profile, until in changes:
        if kind in _OPENS:
            place = names.setdefault(profile, len(names))
            left = max(-1, int((until - now) * _KEPT_MS))
            packed.append((_PLACE[kind], address.packed, address.prefix, place, left))
        else:
            packed.append((_PLACE[kind], address.packed, address.prefix, -1, 0))
    return Work(number, cut, reference, tuple(names), tuple(packed))


def unpack_work(work: Work, now: float, longest: float) -> list[Change]:
    """Return the changes of a message, their ends on the receiver's boot clock, which shows ``now``.

    No end is later than ``reference`` plus what remained, nor than ``now + longest`` seconds.
    Raises ``LinkProtocolError`` for changes that are none.
    """
    if len(work.changes) > MOST_CHANGES:
        raise LinkProtocolError(f"{len(work.changes)} changes in one message; at most {MOST_CHANGES}")
    if not math.isfinite(work.reference):
        raise LinkProtocolError("the moment that remaining times count from is none")
    reference, latest = min(work.reference, now), now + longest
    names = work.profiles
    found: list[Change] = []
    for place, packed, prefix, profile, left in work.changes:
        if not 0 <= place < len(_KINDS) or _PREFIXES.get(prefix) != len(packed) or not -1 <= profile < len(names):
            raise LinkProtocolError("a change names a kind, an address or a profile that there is not")
        kind = _KINDS[place]
        address = Address(packed, prefix)
        if kind in _OPENS:
            if profile < 0:
                raise LinkProtocolError("an opening names no profile")
            found.append(Change(kind, address, names[profile], min(reference + left / 1_000, latest)))
        else:
            if profile >= 0 or left:
                raise LinkProtocolError("a closing names a profile or an end")
            found.append(Change(kind, address))
    if work.cut and any(change.kind in _OPENS for change in found):
        raise LinkProtocolError("the cut lane takes CUT, WITHDRAW and FORGET only")
    return found


def pack_done(number: int, outcomes: Sequence[ChangeOutcome]) -> Done:
    """Make the message for the outcomes of one ``Work``."""
    states = b""
    if any(outcome.state is not Applied.VERIFIED for outcome in outcomes):
        states = bytes(_STATE[outcome.state] for outcome in outcomes)
    details = {place: one.detail[:SENTENCE] for place, one in enumerate(outcomes) if one.detail}
    return Done(number, states, details, max((outcome.accepted for outcome in outcomes), default=0.0))


def unpack_done(done: Done, changes: Sequence[Change], accepted: float) -> list[ChangeOutcome]:
    """Return one outcome a change. ``accepted``: the same on the reader's clock. Raises ``LinkProtocolError``."""
    if not done.states and not done.details:
        return [ChangeOutcome(change, Applied.VERIFIED, "", accepted) for change in changes]
    states = done.states or bytes([_STATE[Applied.VERIFIED]]) * len(changes)
    if len(states) != len(changes) or max(states, default=0) >= len(_STATES):
        raise LinkProtocolError("the outcomes do not fit the changes")
    details = done.details
    return [
        ChangeOutcome(change, _STATES[state], details.get(place, "")[:SENTENCE], accepted)
        for place, (change, state) in enumerate(zip(changes, states, strict=True))
    ]


def pack_addresses(addresses: Sequence[Address]) -> tuple[tuple[bytes, int], ...]:
    """Addresses as a message carries them."""
    return tuple((address.packed, address.prefix) for address in addresses)


def pack_damage(sentence: str) -> Damage:
    """Make the message for what a path gate says of damage."""
    told = sentence[:SENTENCE]
    if not isinstance(sentence, Strayed):
        return Damage(told)
    strayed = pack_addresses(tuple(sentence.addresses)[:MOST_STRAYED])
    everything = sentence.everything or len(sentence.addresses) > MOST_STRAYED
    return Damage(told, strayed, everything, not strayed and not everything)


def unpack_damage(damage: Damage, agent: str) -> str:
    """Return what a message tells of damage. Raises ``LinkProtocolError``."""
    sentence = f"{agent}: {damage.sentence[:SENTENCE]}"
    if not (damage.strayed or damage.everything or damage.mended):
        return sentence
    return Strayed(sentence, unpack_addresses(damage.strayed), everything=damage.everything)


def unpack_addresses(packed: Sequence[tuple[bytes, int]]) -> list[Address]:
    """Return the addresses of a message. Raises ``LinkProtocolError`` for what is none."""
    found = []
    for data, prefix in packed:
        if _PREFIXES.get(prefix) != len(data):
            raise LinkProtocolError("an address has another length than its prefix says")
        found.append(Address(data, prefix))
    return found


def pack_seen(number: int, addresses: Sequence[Address], stands: Mapping[Address, Stands]) -> Seen:
    """Make the message for a read-back."""
    rows = (stands[address] for address in addresses)
    return Seen(
        number,
        tuple(
            (row.profile, -1 if row.remaining is None else int(row.remaining * 1_000), row.tombstone)
            for row in rows
        ),
    )


def unpack_seen(seen: Seen, addresses: Sequence[Address]) -> dict[Address, Stands]:
    """Return what stands at each address. Raises ``LinkProtocolError``."""
    if len(seen.stands) != len(addresses):
        raise LinkProtocolError("the read-back does not fit the question")
    return {
        address: Stands(profile, None if left < 0 else left / 1_000, tombstone)
        for address, (profile, left, tombstone) in zip(addresses, seen.stands, strict=True)
    }


def pack_proof(number: int, addresses: Sequence[Address], proof: Proof) -> Seen:
    """Make the message for a proof."""
    seen = pack_seen(number, addresses, proof.stands)
    layers = {
        part[:SENTENCE]: (-1 if one.found is None else int(one.found), one.words[:SENTENCE])
        for part, one in proof.layers.items()
    }
    elements = tuple(tuple(text[:SENTENCE] for text in proof.elements[address]) for address in addresses)
    return Seen(number, seen.stands, elements, layers, proof.at)


def unpack_proof(seen: Seen, addresses: Sequence[Address], read: float) -> Proof:
    """Return the proof of a message; ``read``: when all was read, on the reader's clock. An agent of an earlier
    version names no elements: what stands is told without them. Raises ``LinkProtocolError``."""
    stands = unpack_seen(seen, addresses)
    if seen.elements and len(seen.elements) != len(addresses):
        raise LinkProtocolError("the proof does not fit the question")
    named = seen.elements or tuple(_unnamed(stands[address]) for address in addresses)
    elements = {
        address: [text[:SENTENCE] for text in texts] for address, texts in zip(addresses, named, strict=True)
    }
    layers = {
        part[:SENTENCE]: Showing(None if found < 0 else bool(found), words[:SENTENCE])
        for part, (found, words) in seen.layers.items()
    }
    return Proof(read, stands, elements, layers)


def _unnamed(stands: Stands) -> tuple[str, ...]:
    found = ("cut",) if stands.tombstone else ()
    return (*found, stands.profile) if stands.profile else found
