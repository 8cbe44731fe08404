"""Elements whose absence tells of damage: some are asked for at a look, so that all get their turn.

Belongs to the guard's thread. What must not live here: when to look, what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.model import Address
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.messages import SetName
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.ruleset import TABLE, Baseline, static_sets
from gateway.enforce.nft.sources import Anchor
from gateway.enforce.nft.standing import SENTINELS, sources_of

#: Keys asked of one static set at each look, and of one set of known addresses; all get their turn.
STATIC_KEYS = 2
KNOWN_KEYS = 2

Group = tuple[SetName, list[bytes], int]
"""A set, its keys, and how many of them are asked for at each look."""


def lost(netlink: NetlinkSocket, witnesses: Sequence[tuple[SetName, bytes]]) -> str:
    """Which set one of the ``witnesses`` is missing from, in words; "" when all stand. Raises ``NetlinkError``."""
    for (where, _), found in zip(witnesses, netlink.get_elements(witnesses), strict=True):
        if found is None:
            return f"set {where.name} lost an element"
    return ""


def of_devices(baseline: Baseline, known: Sequence[Address], anchors: Sequence[Anchor]) -> list[Group]:
    """Sentinels, the inventory's addresses and their anchors."""
    sets = DeviceSets(())
    groups: list[Group] = []
    for prefix, where in sets.cut.items():
        groups.append((where, [one.packed for one in SENTINELS if one.prefix == prefix], STATIC_KEYS))
    for prefix, where in sets.known.items():
        if keys := [address.packed for address in known if address.prefix == prefix]:
            groups.append((where, keys, KNOWN_KEYS))
    groups += [(where, keys, KNOWN_KEYS) for where, keys in sources_of(baseline, known, anchors).items() if keys]
    return groups


class Witnesses:
    """Keys of the sets that must not lose an element: some each time, so that all get their turn."""

    def __init__(self, baseline: Baseline, known: Sequence[Group]) -> None:
        self._groups: list[Group] = [
            (SetName(TABLE, name, static.key_length), list(static.keys), STATIC_KEYS)
            for name, static in static_sets(baseline).items()
            if static.keys and static.single
        ]
        self._groups += known
        self._turn = 0
        #: looks after which each key has been asked for
        self.turns = max(-(-len(keys) // most) for _, keys, most in self._groups)

    def next(self) -> list[tuple[SetName, bytes]]:
        """The keys to ask for this time."""
        wanted = []
        for where, keys, most in self._groups:
            start = self._turn * most % (-(-len(keys) // most) * most)
            wanted += [(where, key) for key in keys[start : start + most]]
        self._turn += 1
        return wanted
