"""Devices counted by effective standing: all together, and by the classes that the site's conditions name.

What lives here: counting, one step per change of a standing. What must not: deciding what a count means.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.model import Device, DeviceId, Standing
from gateway.core.policy import Book
from gateway.core.policy.rulings import Finder

Counts = dict[Standing, int]


class Census:
    """Counts of living states. ``version`` tells whether any has changed; it costs nothing while none does."""

    def __init__(self, book: Book) -> None:
        named = {condition.device_class for rule in book.site for condition in rule.when}
        classes = [each for each in book.classes if each.name in named]
        self._finder = Finder(classes)
        self._by_class: dict[str, Counts] = {each.name: dict.fromkeys(Standing, 0) for each in classes}
        self._of: dict[DeviceId, tuple[Counts, ...]] = {}
        self._counts: Counts = dict.fromkeys(Standing, 0)
        self.version = 0

    def add(self, device: Device, standing: Standing) -> None:
        """Count a device that was not counted before."""
        self._counts[standing] += 1
        self.version += 1
        found = self._finder.find(device) if self._by_class else ()
        if found:
            mine = self._of[device.id] = tuple(self._by_class[each.name] for each in found)
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

    @property
    def total(self) -> int:
        """All devices."""
        return sum(self._counts.values())

    def labelled(self) -> dict[str, int]:
        """Devices by the label of their standing; every label is present."""
        return _labelled(self._counts)

    def by_class(self) -> Mapping[str, Mapping[str, int]]:
        """The same for each class that a condition names."""
        return {name: _labelled(counts) for name, counts in self._by_class.items()}


def _labelled(counts: Counts) -> dict[str, int]:
    return {standing.label: count for standing, count in counts.items()}
