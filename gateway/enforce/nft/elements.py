"""Changes as element transactions, and what read-back must show for them to be verified.

Pure but for the socket handed in. Order inside a transaction: everything is added plainly first, then deleted,
then added with its end. A delete of something absent would fail the whole transaction: where the kernel does not
know deletes that do not mind (before Linux 6.3), add before delete makes it harmless.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.core.model import Address, Change, ChangeKind, Stands
from gateway.enforce.nft.messages import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_NEWSETELEM,
    Element,
    Message,
    SetName,
    element,
    element_messages,
    key_messages,
)
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.ruleset import TABLE

#: How much later than asked an element may end by read-back, in ms: the kernel counts in ticks of up to 10 ms, and
#: an element's time starts when the transaction has the kernel's lock.
END_TOLERANCE_MS = 20
#: How the one objection begins that another try usually lifts: the thread was held up between two looks at a clock.
LATE = "it would end"
#: Milliseconds in a second.
_MS = 1_000

_FAMILY = "inet"
_SUFFIX = {32: "4", 128: "6", 64: "6n"}
_KEY_LENGTH = {32: 4, 128: 16, 64: 16}
# Read for every change; a member read from its Enum costs fifteen times as much.
_ADMIT, _CUT, _FORGET = ChangeKind.ADMIT, ChangeKind.CUT, ChangeKind.FORGET
_TIMED = frozenset({ChangeKind.ADMIT, ChangeKind.REFRESH})


class Step(NamedTuple):
    """A change and the timeout it gets: ``None`` when nothing is admitted (the end has come)."""

    change: Change
    timeout_ms: int | None

    @property
    def admits(self) -> bool:
        """Whether an element with an end is added."""
        return self.timeout_ms is not None


def step_of(change: Change, boot: float) -> Step:
    """Round the remaining time down to whole ms; below 1 ms nothing is admitted (0 would mean for ever)."""
    if change.kind not in _TIMED:
        return Step(change, None)
    milliseconds = math.floor((change.until - boot) * _MS)
    return Step(change, milliseconds if milliseconds >= 1 else None)


class DeviceSets:
    """The device sets of the table, by profile and kind of address."""

    def __init__(self, profiles: Sequence[str]) -> None:
        self.profiles = tuple(profiles)
        self.cut = self._family("cut")
        self.known = self._family("known")
        self.of: Mapping[str, Mapping[int, SetName]] = {name: self._family(name) for name in profiles}

        self._place = {name: place for place, name in enumerate(profiles, 1)}  # in what is read of an address
        self._rows = {
            prefix: (self.cut[prefix], *(sets[prefix] for sets in self.of.values())) for prefix in _SUFFIX
        }

    @staticmethod
    def _family(name: str) -> Mapping[int, SetName]:
        return {
            prefix: SetName(TABLE, f"{name}{suffix}", _KEY_LENGTH[prefix]) for prefix, suffix in _SUFFIX.items()
        }

    def names(self, address: Address) -> Sequence[SetName]:
        """Where an address may stand: tombstones first, then each profile."""
        return self._rows[address.prefix]

    def messages(self, steps: Sequence[Step], *, destroys: bool) -> list[Message]:
        """One transaction's messages. The steps' addresses must differ from each other. ``destroys``: the kernel
        knows deletes that are content with nothing to delete (half the work for it)."""
        cut: defaultdict[int, list[bytes]] = defaultdict(list)
        forgotten: defaultdict[int, list[bytes]] = defaultdict(list)
        lowered: defaultdict[int, list[bytes]] = defaultdict(list)
        admit: defaultdict[SetName, list[bytes]] = defaultdict(list)
        for (kind, (key, prefix), profile, _), timeout_ms in steps:
            lowered[prefix].append(key)
            if kind is _CUT:
                cut[prefix].append(key)
            elif kind is _FORGET or (kind is _ADMIT and timeout_ms is not None):
                forgotten[prefix].append(key)
            if timeout_ms is not None:
                admit[self.of[profile][prefix]].append(element(key, timeout_ms))
        add = [(self.cut[prefix], keys) for prefix, keys in cut.items()]
        delete = [(self.cut[prefix], keys) for prefix, keys in forgotten.items()]
        delete += [(sets[prefix], keys) for prefix, keys in lowered.items() for sets in self.of.values()]
        if not destroys:
            add += delete
        remove = NFT_MSG_DESTROYSETELEM if destroys else NFT_MSG_DELSETELEM
        messages: list[Message] = []
        for kind_of_message, sets_of_keys in ((NFT_MSG_NEWSETELEM, add), (remove, delete)):
            for where, keys in sets_of_keys:
                messages += key_messages(kind_of_message, where, keys)
        for where, elements in admit.items():
            messages += element_messages(NFT_MSG_NEWSETELEM, where, elements)
        return messages

    def read(self, netlink: NetlinkSocket, addresses: Sequence[Address]) -> list[list[Element | None]]:
        """Read back each address: tombstone first, then each profile. Raises ``NetlinkError``."""
        rows = self._rows
        found = netlink.look_up([(rows[prefix], key) for key, prefix in addresses])
        width = 1 + len(self.profiles)
        return [found[start : start + width] for start in range(0, len(found), width)]

    def stands(self, found: Sequence[Element | None]) -> Stands:
        """What one address has, from its read-back."""
        for profile, one in zip(self.profiles, found[1:], strict=True):
            if one is not None:
                remaining = None if one.remaining_ms is None else one.remaining_ms / _MS
                return Stands(profile, remaining, found[0] is not None)
        return Stands("", None, found[0] is not None)

    def named(self, address: Address, stands: Stands) -> Sequence[str]:
        """What was read of an address, as ``nft`` names it: table, set and element; empty when nothing was."""
        key = str(address).partition("/")[0]
        found = [f"{_FAMILY} {TABLE} {self.cut[address.prefix].name} {{ {key} }}"] if stands.tombstone else []
        if stands.profile:
            ends = "" if stands.remaining is None else f" expires {stands.remaining:.1f}s"
            found.append(f"{_FAMILY} {TABLE} {self.of[stands.profile][address.prefix].name} {{ {key}{ends} }}")
        return found

    def unverified(self, step: Step, found: Sequence[Element | None], boot: float) -> str:
        """Why read-back at ``boot`` does not show what the step wanted; "" when it does."""
        change, timeout_ms = step
        if found.count(None) == len(self.profiles):  # one element stands: nearly always the one that was wanted
            if timeout_ms is None:
                if change.kind is _CUT and found[0] is not None:
                    return ""
            elif (one := found[self._place[change.profile]]) is not None:
                return self._unverified_end(step, one, boot)
        return self._unverified_anyhow(step, found, boot)

    def _unverified_anyhow(self, step: Step, found: Sequence[Element | None], boot: float) -> str:
        change = step.change
        cut = found[0] is not None
        standing = [name for name, one in zip(self.profiles, found[1:], strict=True) if one is not None]
        if step.timeout_ms is None:
            return _unverified_shut(change, cut=cut, standing=standing)
        if cut:
            return "read-back shows a tombstone"
        if standing != [change.profile]:
            left = math.floor((change.until - boot) * _MS)
            if not standing and left <= END_TOLERANCE_MS:
                return ""  # it has ended meanwhile, as asked
            return f"read-back shows {', '.join(standing) or 'no profile'} instead of {change.profile}"
        return self._unverified_end(step, found[self._place[change.profile]], boot)

    @staticmethod
    def _unverified_end(step: Step, one: Element | None, boot: float) -> str:
        if one is None or one.remaining_ms is None or step.timeout_ms is None:
            return "read-back shows an admission without an end"
        if one.remaining_ms > step.timeout_ms:
            return f"read-back shows {one.remaining_ms} ms instead of {step.timeout_ms} ms"
        late = one.remaining_ms - math.floor((step.change.until - boot) * _MS)
        if late > END_TOLERANCE_MS:
            return f"{LATE} {late} ms late"
        return ""


def _unverified_shut(change: Change, *, cut: bool, standing: Sequence[str]) -> str:
    if standing:
        return f"read-back still shows {', '.join(standing)}"
    if change.kind is _CUT and not cut:
        return "read-back shows no tombstone"
    if change.kind is _FORGET and cut:
        return "read-back still shows a tombstone"
    return ""
