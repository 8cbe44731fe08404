"""Two books over the same devices in the same states: whose access changes, now or when they attest again.

What lives here: the comparison, and values handed in that belong to it (documents, budgets, findings). What must
not: rendering a document, judging a book by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.core.binding import AddressBook
from gateway.core.model import Device, DeviceId, Standing
from gateway.core.policy import Book, Finding, decide
from gateway.core.rehearsal.shifts import Shift, Shifts, lowest_sharer

NOW = "now"
"""The ``when`` of a group whose access changes as soon as the other book runs."""

#: Standings under which a device has something to lose, with a deadline that runs.
_ADMITTING = (Standing.TRUSTED, Standing.SUSPECT)
_SOME_DEADLINE = 0.0


class State(NamedTuple):
    """A device's standing, folded over its sources, and its deadline (UNIX seconds; None: none runs)."""

    standing: Standing = Standing.UNKNOWN
    deadline: float | None = None


class Group(NamedTuple):
    """Devices whose access changes in the same way, in inventory order.

    ``when`` is ``now``, or the label of the standing in which they will notice: what they may do now stays.
    """

    when: str
    shift: Shift
    devices: tuple[DeviceId, ...]


class Documents(NamedTuple):
    """Keys of the documents that come, change and go, each in order of the keys."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def differ(self) -> bool:
        """Whether there are any."""
        return bool(self.added or self.changed or self.removed)


class Budget(NamedTuple):
    """How much of a limited thing each book uses, in ``unit``; ``limit`` is where it is full."""

    subject: str
    before: int
    after: int
    limit: int
    unit: str = "entries"


class Comparison(NamedTuple):
    """What another book changes. A device is in one group at most: the first of now, trusted, suspect."""

    devices: int
    groups: tuple[Group, ...] = ()
    documents: Documents = Documents()
    budgets: tuple[Budget, ...] = ()
    findings: tuple[Finding, ...] = ()

    def count(self, when: str | None = None) -> int:
        """Devices whose access changes: now, in one standing, or (None) at all."""
        return sum(len(group.devices) for group in self.groups if when is None or group.when == when)


def compare(
    devices: Sequence[Device],
    states: Mapping[DeviceId, State],
    before: Book,
    after: Book,
    documents: Documents = Documents(),  # noqa: B008 - immutable value
    budgets: Iterable[Budget] = (),
    findings: Iterable[Finding] = (),
) -> Comparison:
    """Return what ``after`` changes against ``before``; a device without a state is taken as unknown.

    Shared addresses are judged as the running service does. Groups: now first, the largest first in each ``when``.
    """
    shifts = Shifts(before, after)
    addresses = AddressBook(devices)
    unknown = State()
    found: dict[tuple[str, Shift], list[DeviceId]] = {}

    def standing_of(device: DeviceId) -> Standing:
        return states.get(device, unknown).standing

    for device in devices:
        standing, deadline = states.get(device.id, unknown)
        sharers = addresses.sharers(device.id)
        conflict = lowest_sharer(standing, sharers, standing_of) if sharers else None
        old = decide(device, standing, deadline, before, conflict).profile
        shift = shifts.between(old, decide(device, standing, deadline, after, conflict).profile)
        when = NOW
        if shift is None:
            for will_be in _ADMITTING:
                old = decide(device, will_be, _SOME_DEADLINE, before).profile
                shift = shifts.between(old, decide(device, will_be, _SOME_DEADLINE, after).profile)
                if shift is not None:
                    when = will_be.label
                    break
            else:
                continue
        found.setdefault((when, shift), []).append(device.id)
    groups = [Group(when, shift, tuple(names)) for (when, shift), names in found.items()]
    order = [NOW, *(standing.label for standing in _ADMITTING)]
    groups.sort(key=lambda group: (order.index(group.when), -len(group.devices)))
    return Comparison(len(devices), tuple(groups), documents, tuple(budgets), tuple(findings))


def compare_documents(before: Mapping[str, str], after: Mapping[str, str]) -> Documents:
    """Return which documents come, change and go; values are the rendered texts, opaque here."""
    return Documents(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(key for key in before.keys() & after.keys() if before[key] != after[key])),
        tuple(sorted(before.keys() - after.keys())),
    )
