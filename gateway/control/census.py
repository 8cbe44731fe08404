"""Devices counted by effective standing: all together, and by the classes that the site's conditions name.

What lives here: counting, one step per change of a standing. What must not: deciding what a count means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.control.slots import Slot
from gateway.core.model import Device, DeviceId, Standing
from gateway.core.policy import Book, DeviceClass
from gateway.core.policy.rulings import Finder

SLICE = 1_000
"""Devices grouped anew between two breaths: about a millisecond."""

Counts = dict[Standing, int]


class _Groups:
    """The classes that a book's site conditions name, and how many of each there are by standing."""

    def __init__(self, book: Book) -> None:
        named = {condition.device_class for rule in book.site for condition in rule.when}
        classes: Sequence[DeviceClass] = [each for each in book.classes if each.name in named]
        self._finder = Finder(classes)
        self.counts: dict[str, Counts] = {each.name: dict.fromkeys(Standing, 0) for each in classes}

    def of(self, device: Device) -> tuple[Counts, ...]:
        """The counts in which a device is."""
        return tuple(self.counts[each.name] for each in self._finder.find(device)) if self.counts else ()


class Census:
    """Counts of living states. ``version`` tells whether any has changed; it costs nothing while none does."""

    def __init__(self, book: Book) -> None:
        self._groups = _Groups(book)
        self._of: dict[DeviceId, tuple[Counts, ...]] = {}
        self._counts: Counts = dict.fromkeys(Standing, 0)
        self.version = 0

    def add(self, device: Device, standing: Standing) -> None:
        """Count a device that was not counted before."""
        self._counts[standing] += 1
        self.version += 1
        mine = self._groups.of(device)
        if mine:
            self._of[device.id] = mine
            for counts in mine:
                counts[standing] += 1

    def move(self, device: DeviceId, old: Standing, new: Standing) -> None:
        """A counted device has another standing."""
        self._counts[old] -= 1
        self._counts[new] += 1
        self.version += 1
        for counts in self._of.get(device, ()):
            counts[old] -= 1
            counts[new] += 1

    def regrouping(self, book: Book, slots: Iterable[Slot]) -> Iterator[None]:
        """Count by another book's classes, in slices; until the end the old ones are told. ``slots``: all devices.

        Standings may move meanwhile: a device is in the counts of both books from its turn on.
        """
        groups = _Groups(book)
        fresh: dict[DeviceId, tuple[Counts, ...]] = {}
        for number, slot in enumerate(slots if groups.counts else (), 1):
            mine = groups.of(slot.device)
            if mine:
                name, standing = slot.device.id, slot.decision.standing
                fresh[name] = mine
                self._of[name] = (*self._of.get(name, ()), *mine)
                for counts in mine:
                    counts[standing] += 1
            if not number % SLICE:
                yield
        self._groups, self._of = groups, fresh
        self.version += 1

    @property
    def total(self) -> int:
        """All devices."""
        return sum(self._counts.values())

    def labelled(self) -> dict[str, int]:
        """Devices by the label of their standing; every label is present."""
        return _labelled(self._counts)

    def by_class(self) -> Mapping[str, Mapping[str, int]]:
        """The same for each class that a condition names."""
        return {name: _labelled(counts) for name, counts in self._groups.counts.items()}


def _labelled(counts: Counts) -> dict[str, int]:
    return {standing.label: count for standing, count in counts.items()}
