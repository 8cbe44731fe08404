"""Two books over the same devices in the same states: whose access changes, now or when they attest again.

What lives here: the comparison, and values handed in that belong to it (documents, budgets, findings). What must
not: rendering a document, judging a book by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.core.binding import AddressBook
from gateway.core.model import Device, DeviceId, Standing
from gateway.core.policy import Book, Finding, Override, decide
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


_UNKNOWN = State()
_NO_OVERRIDES: Mapping[DeviceId, Override] = {}


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
    would: Mapping[DeviceId, State] | None = None,
    overrides: Mapping[DeviceId, Override] = _NO_OVERRIDES,
    now: float = 0.0,
) -> Comparison:
    """Return what ``after`` changes against ``before``; a device without a state is taken as unknown.

    ``would``: the same records folded by ``after``, where its quorums differ; None: ``states``.
    ``overrides``: those in force at ``now`` (UNIX seconds); what such a device may do now is judged under its own,
    what it will notice later is not, for an override ends.
    Shared addresses are judged as the running service does. Groups: now first, the largest first in each ``when``.
    """
    work = _Work(devices, states, states if would is None else would, before, after, overrides, now)
    found: dict[tuple[str, Shift], list[DeviceId]] = {}
    for device in devices:
        change = work.change(device)
        if change is not None:
            found.setdefault(change, []).append(device.id)
    groups = [Group(when, shift, tuple(names)) for (when, shift), names in found.items()]
    order = [NOW, *(standing.label for standing in _ADMITTING)]
    groups.sort(key=lambda group: (order.index(group.when), -len(group.devices)))
    return Comparison(len(devices), tuple(groups), documents, tuple(budgets), tuple(findings))


class _Work:
    """One comparison under way. Devices for which both books have the same rulings are judged once."""

    def __init__(
        self,
        devices: Sequence[Device],
        states: Mapping[DeviceId, State],
        would: Mapping[DeviceId, State],
        before: Book,
        after: Book,
        overrides: Mapping[DeviceId, Override],
        now: float,
    ) -> None:
        self._states, self._would = states, would
        self._overrides, self._now = overrides, now
        self._before, self._after = before, after
        self._shifts = Shifts(before, after)
        self._addresses = AddressBook(devices)
        self._known: dict[tuple[object, ...], tuple[str, Shift] | None] = {}

    def change(self, device: Device) -> tuple[str, Shift] | None:
        """When and how the access of a device changes; None: it does not."""
        name = device.id
        was, would = self._states.get(name, _UNKNOWN), self._would.get(name, _UNKNOWN)
        if self._addresses.sharers(name) or name in self._overrides:
            return self._judge(device, was, would)
        old, new = self._before.compiled.get(name), self._after.compiled.get(name)
        if old is None or new is None or old[0] is not device or new[0] is not device:
            return self._judge(device, was, would)
        # The books keep their rulings alive: an identity names what is ruled.
        key = (id(old[1]), id(new[1]), was[0], was[1] is None, would[0], would[1] is None)
        try:
            return self._known[key]
        except KeyError:
            made = self._known[key] = self._judge(device, was, would)
            return made

    def _judge(self, device: Device, was: State, would: State) -> tuple[str, Shift] | None:
        old = self._profile(device, was, self._states, self._before)
        shift = self._shifts.between(old, self._profile(device, would, self._would, self._after))
        if shift is not None:
            return NOW, shift
        for standing in _ADMITTING:
            old = decide(device, standing, _SOME_DEADLINE, self._before).profile
            shift = self._shifts.between(old, decide(device, standing, _SOME_DEADLINE, self._after).profile)
            if shift is not None:
                return standing.label, shift
        return None

    def _profile(self, device: Device, state: State, states: Mapping[DeviceId, State], book: Book) -> str:
        standing, deadline = state
        sharers, word = self._addresses.sharers(device.id), self._overrides.get(device.id)
        if not sharers:
            return decide(device, standing, deadline, book, None, word, self._now).profile
        conflict = lowest_sharer(standing, sharers, lambda other: states.get(other, _UNKNOWN).standing)
        return decide(device, standing, deadline, book, conflict, word, self._now).profile


def compare_documents(before: Mapping[str, str], after: Mapping[str, str]) -> Documents:
    """Return which documents come, change and go; values are the rendered texts, opaque here."""
    return Documents(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(key for key in before.keys() & after.keys() if before[key] != after[key])),
        tuple(sorted(before.keys() - after.keys())),
    )
