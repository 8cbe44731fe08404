"""Standings that a test sets."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.model import DeviceId


class FakeStandings:
    """Implements the ``Standings`` port: ``admit`` and ``cut`` tell followers at once, as the clockwork does."""

    def __init__(self) -> None:
        self.admitted: dict[tuple[DeviceId, str], float] = {}
        self.wishes: set[DeviceId] = set()
        self.told: list[DeviceId] = []
        self.left: dict[DeviceId, int] = {}  # messages that may still be carried; absent: any number
        self._followers: list[Callable[[DeviceId], None]] = []

    def until(self, device: DeviceId, service: str) -> float:
        return self.admitted.get((device, service), 0.0)

    def spend(self, device: DeviceId) -> bool:
        left = self.left.get(device, 1)
        if device in self.left:
            self.left[device] = max(0, left - 1)
        return left > 0

    def wanted(self, device: DeviceId) -> bool:
        return device in self.wishes

    def asked(self, device: DeviceId) -> None:
        self.wishes.discard(device)
        self.told.append(device)

    def follow(self, changed: Callable[[DeviceId], None]) -> None:
        self._followers.append(changed)

    def admit(self, device: DeviceId, service: str = "feed", until: float = 1e9) -> None:
        """From now on the device may reach the service, until this boot second."""
        self.admitted[device, service] = until
        self._tell(device)

    def cut(self, device: DeviceId) -> None:
        """From now on it may reach nothing."""
        self.admitted = {key: until for key, until in self.admitted.items() if key[0] != device}
        self._tell(device)

    def _tell(self, device: DeviceId) -> None:
        for changed in self._followers:
            changed(device)
