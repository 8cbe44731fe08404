"""Carrying out changes on one netlink socket: as few transactions as possible, each change read back.

Belongs to one lane's thread. What must not live here: order between lanes, the loop.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from gateway.control.ports import Clock
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands
from gateway.enforce.nft.elements import LATE, DeviceSets, Step, step_of
from gateway.enforce.nft.messages import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    Message,
    element,
    element_messages,
)
from gateway.enforce.nft.netlink import NetlinkError, NetlinkSocket

#: Changes in one transaction: 1,000 hold the kernel's lock a few milliseconds.
MAX_CHANGES = 1_000
#: Bytes that one element takes at most in a message (IPv6 key and timeout), rounded up.
ELEMENT_BYTES = 48
#: What a change is told that found its set full of expired elements; worth another try after their collection.
FULL = "the set is full"

#: Further tries of a change that would end too late, because this thread did not run for a while between reading
#: the clock and the kernel's taking it, or between read-back and reading the clock again.
LATE_TRIES = 8

# Read for every change; a member read from its Enum costs fifteen times as much.
_CUT, _FORGET, _REFRESH = ChangeKind.CUT, ChangeKind.FORGET, ChangeKind.REFRESH
_FAILED, _VERIFIED = Applied.FAILED, Applied.VERIFIED
_LOWERING = frozenset({ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET})


class Committer:
    """Applies changes of distinct addresses and verifies them."""

    def __init__(self, netlink: NetlinkSocket, sets: DeviceSets, clock: Clock) -> None:
        self._netlink = netlink
        self._clock = clock
        self._accepted = 0.0  # when the kernel took the newest transaction
        self.adopt(sets)

    def adopt(self, sets: DeviceSets) -> None:
        """Work on these sets from here on, all of which must stand."""
        self._sets = sets
        self._destroys = self._netlink.can_destroy(sets.cut[32])
        elements = 3 + 2 * len(sets.profiles)
        self.max_changes = min(MAX_CHANGES, self._netlink.largest_transaction // (ELEMENT_BYTES * elements))

    def commit(self, changes: Sequence[Change]) -> list[ChangeOutcome]:
        """Carry out changes, at most ``max_changes`` and of distinct addresses; one outcome each, in order.

        Raises ``NetlinkError`` when read-back fails: nothing is known then.
        """
        failures = self._objections(changes)
        tried = (
            [place for place in range(len(changes)) if place not in failures] if failures else range(len(changes))
        )
        details = self._attempt([changes[place] for place in tried])
        if any(details):
            again = [place for place, detail in zip(tried, details, strict=True) if detail]
            failures.update(zip(again, self._one_by_one([changes[place] for place in again]), strict=True))
        accepted = self._accepted
        if not failures:
            return [ChangeOutcome(change, _VERIFIED, "", accepted) for change in changes]
        return [_outcome(change, failures.get(place, ""), accepted) for place, change in enumerate(changes)]

    def observe(self, addresses: Sequence[Address]) -> list[Stands]:
        """Read back addresses one by one. Raises ``NetlinkError``."""
        return [self._sets.stands(found) for found in self._sets.read(self._netlink, addresses)]

    def _objections(self, changes: Sequence[Change]) -> dict[int, str]:
        """Which changes, by place, cannot be carried out however often they are tried, and why."""
        objections: dict[int, str] = {}
        refreshed: list[int] = []
        for place, change in enumerate(changes):
            if change.kind in _LOWERING:
                continue
            if change.profile not in self._sets.of:
                objections[place] = f"the path gate has no profile {change.profile}"
            if change.kind is _REFRESH:
                refreshed.append(place)
        wanted = [
            (self._sets.cut[changes[place].address.prefix], changes[place].address.packed) for place in refreshed
        ]
        for place, tombstone in zip(refreshed, self._netlink.get_elements(wanted), strict=True):
            if tombstone is not None:
                objections[place] = "a tombstone stands"
        return objections

    def _attempt(self, changes: Sequence[Change]) -> list[str]:
        """Try changes as one transaction; "" for each that read-back verified, else why not."""
        if not changes:
            return []
        steps = self._steps(changes)
        try:
            self._netlink.transact(self._sets.messages(steps, destroys=self._destroys))
        except NetlinkError as error:
            return [str(error)] * len(changes)
        self._accepted = self._clock.now().boot
        return self._unverified(steps)

    def _one_by_one(self, changes: Sequence[Change]) -> Iterator[str]:
        """Take changes again, one transaction each."""
        for change in changes:
            detail = self._once(change)
            for _ in range(LATE_TRIES):
                if not detail.startswith(LATE):
                    break
                detail = self._once(change)
            yield detail

    def _once(self, change: Change) -> str:
        """One change as a transaction of its own, timed anew; "" when read-back verified it, else why not."""
        (step,) = self._steps([change])
        try:
            self._netlink.transact(self._sets.messages([step], destroys=self._destroys))
        except NetlinkError as error:
            return self._alone(step, error)
        return self._unverified([step])[0]

    def _alone(self, step: Step, refused: NetlinkError) -> str:
        """After a refusal: lower by deleting just what is there, which needs no room in any set."""
        if step.admits:
            return FULL if refused.code == errno.ENFILE else str(refused)
        try:
            self._netlink.transact(self._lowering_messages(step))
        except NetlinkError as error:
            return str(error)
        return self._unverified([step])[0]

    def _lowering_messages(self, step: Step) -> list[Message]:
        change = step.change
        plain = [element(change.address.packed)]
        names = self._sets.names(change.address)
        found = self._sets.read(self._netlink, [change.address])[0]
        messages = []
        if change.kind is _CUT:
            messages += element_messages(NFT_MSG_NEWSETELEM, names[0], plain)
        start = 0 if change.kind is _FORGET else 1
        for where, one in list(zip(names, found, strict=True))[start:]:
            if one is not None:
                messages += element_messages(NFT_MSG_DELSETELEM, where, plain)
        return messages

    def _steps(self, changes: Sequence[Change]) -> list[Step]:
        boot = self._clock.now().boot
        return [step_of(change, boot) for change in changes]

    def _unverified(self, steps: Sequence[Step]) -> list[str]:
        read = self._sets.read(self._netlink, [step.change.address for step in steps])
        boot = self._clock.now().boot
        return [self._sets.unverified(step, found, boot) for step, found in zip(steps, read, strict=True)]


def _outcome(change: Change, failure: str, accepted: float) -> ChangeOutcome:
    return ChangeOutcome(change, _FAILED if failure else _VERIFIED, failure, accepted)
