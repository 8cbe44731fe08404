"""One look at this network namespace, judged. Blocks for as long as the kernel takes: run it beside the loop.

What must not live here: when to look, what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.watch.bypass.judge import Bypass, Route, Seen, judge
from gateway.watch.bypass.rtnetlink import Kernel


class Looker:
    """Looks again and again; remembers the routes, which are dear where there are many devices."""

    def __init__(self, services: Sequence[str], devices: Sequence[str]) -> None:
        self._services = tuple(services)
        self._devices = tuple(devices)
        self._routes: dict[str, Route | None] = {}

    def aim(self, services: Sequence[str]) -> None:
        """Look for ways to these services from the next look on; may be called while one goes on."""
        self._services = tuple(services)

    def look(self, *, anew: bool) -> tuple[Bypass, ...]:
        """Every way around the gate. ``anew``: ask for the routes again, about 10 us each.

        Raises ``LookError`` when the kernel does not tell.
        """
        services = self._services
        kernel = Kernel()
        try:
            if anew or not self._routes or not self._routes.keys() >= set(services):
                self._routes = kernel.routes([*services, *self._devices])
            return judge(
                Seen(
                    kernel.interfaces(),
                    {address: self._routes[address] for address in self._devices},
                    {address: self._routes[address] for address in services},
                    kernel.flowtables(),
                )
            )
        finally:
            kernel.close()


def look(services: Sequence[str], devices: Sequence[str]) -> tuple[Bypass, ...]:
    """Every way around the gate between these addresses, as things stand. Raises ``LookError``."""
    return Looker(services, devices).look(anew=True)
