"""One network policy as several, each below what KubeArmor takes in one message, that mean the same together.

The first match wins across all policies of a host, in the order in which they were taken, and after a restart in
that of their names (interface 1.6, 4.2). So the parts are a chain: the first begins with what stands before the
long list of allowed sources, each has a piece of the list, and only the last ends with what blocks everybody else.
Their names follow one another in the alphabet.
What must not live here: sending, reading back, the contents of a policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from gateway.kubearmor import policies
from gateway.kubearmor.names import DocumentRefused, check_name
from gateway.kubearmor.policies import Action, EventType, NetworkEntry, NetworkPolicy
from gateway.kubearmor.prefixes import FILLERS, Prefix, both_families

#: Parts at most: about 800,000 IPv4 addresses that do not join. KubeArmor lays all rules of the host anew for each
#: part that is sent, which takes most of a second for each 100,000 (interface 4.4).
MAX_PARTS = 8

#: The most bytes of JSON that one peer takes, with its comma, by family.
_WEIGHT = {
    4: len('{"ipBlock":{"cidr":"255.255.255.255/32"}},'),
    6: len('{"ipBlock":{"cidr":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"}},'),
}

#: Characters at the end of a name that make room for the number of a part.
_ROOM = len("z-01")


class Parts(NamedTuple):
    """``policies`` in the order in which they have to stand. ``closed``: the first with the final block of the
    last, to be sent while the others change: what stands behind it has no effect. ``cuts``: where pieces begin."""

    policies: tuple[NetworkPolicy, ...]
    closed: NetworkPolicy
    cuts: tuple[Prefix, ...]


def part_names(name: str) -> tuple[str, ...]:
    """Return the names that the parts of a policy may have, ``name`` first, ascending in the alphabet.

    ``name`` ends in eight hexadecimal digits: the last four make room for a ``z``, which stands behind any of them,
    and the number, so that no other policy's name comes in between.
    """
    return (name, *(check_name(f"{name[:-_ROOM]}z-{number:02d}") for number in range(1, MAX_PARTS)))


def split(policy: NetworkPolicy, cuts: Sequence[Prefix] = ()) -> Parts:
    """Return the policy as one part or, when it is too large for one message, as several.

    ``cuts`` of the time before are kept while each piece fits, so that one device more changes one part. Raises
    ``DocumentRefused`` when ``MAX_PARTS`` are not enough.
    """
    long = max(range(len(policy.ingress)), key=lambda number: len(policy.ingress[number].peers))
    entry = policy.ingress[long]
    head, tail = policy.ingress[:long], policy.ingress[long + 1 :]
    peers = [peer for peer in entry.peers if peer not in FILLERS]
    room = policies.MAX_EVENT - _rest(policy, long)
    if entry.action is not Action.ALLOW or (_weight(peers) <= room and not cuts):
        return Parts((policy,), policy, ())
    pieces = _pieces(peers, room, cuts)
    if len(pieces) == 1:
        return Parts((policy,), policy, ())
    names = part_names(policy.name)
    made = []
    for number, piece in enumerate(pieces):
        entries: tuple[NetworkEntry, ...] = (replace(entry, peers=both_families(piece)),)
        entries = (*head, *entries) if number == 0 else entries
        entries = (*entries, *tail) if number == len(pieces) - 1 else entries
        made.append(replace(policy, name=names[number], ingress=entries))
    closed = replace(made[0], ingress=(*made[0].ingress, *tail))
    return Parts(tuple(made), closed, tuple(piece[0] for piece in pieces[1:]))


def loosens_only(before: NetworkPolicy, after: NetworkPolicy) -> bool:
    """Whether every peer that a part had is still there."""
    return _peers(before) <= _peers(after)


def _peers(policy: NetworkPolicy) -> frozenset[tuple[Action, Prefix]]:
    return frozenset((entry.action, peer) for entry in policy.ingress for peer in entry.peers)


def _rest(policy: NetworkPolicy, long: int) -> int:
    """Bytes of the event without the peers of the long entry, and with a name of any length."""
    short = replace(policy.ingress[long], peers=both_families(()))
    without: tuple[NetworkEntry, ...] = (*policy.ingress[:long], short, *policy.ingress[long + 1 :])
    rendered = replace(policy, ingress=without).render()
    return len(msgspec.json.encode({"type": EventType.DELETED.value, "object": rendered}))


def _weight(peers: Sequence[Prefix]) -> int:
    four = sum(peer.family == 4 for peer in peers)
    return four * _WEIGHT[4] + (len(peers) - four) * _WEIGHT[6]


def _pieces(peers: Sequence[Prefix], room: int, cuts: Sequence[Prefix]) -> list[Sequence[Prefix]]:
    total, filled = _weight(peers), max(1, room * 3 // 4)
    if cuts and total > filled * len(cuts):
        kept = _at(peers, cuts)
        if all(piece and _weight(piece) <= room for piece in kept):
            return kept
    number = 1 if total <= filled else min(MAX_PARTS, -(-total // filled))
    found: list[list[Prefix]] = [[] for _ in range(number)]
    passed = 0
    for peer in peers:
        found[passed * number // total].append(peer)
        passed += _WEIGHT[peer.family]
    if any(not piece or _weight(piece) > room for piece in found) and total:
        msg = (
            f"{len(peers)} prefixes do not fit into {MAX_PARTS} policies of {policies.MAX_EVENT} bytes, all that"
            " KubeArmor takes in one message: too many separate prefixes; give devices addresses that join"
        )
        raise DocumentRefused(msg)
    return list(found)


def _at(peers: Sequence[Prefix], cuts: Sequence[Prefix]) -> list[Sequence[Prefix]]:
    found: list[Sequence[Prefix]] = []
    at = 0
    for cut in cuts:
        end = at
        while end < len(peers) and peers[end] < cut:
            end += 1
        found.append(peers[at:end])
        at = end
    return [*found, peers[at:]]
