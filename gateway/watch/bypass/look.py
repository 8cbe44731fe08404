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

    def look(self, *, anew: bool) -> tuple[Bypass, ...]:
        """Every way around the gate. ``anew``: ask for the routes again, about 10 us each.

        Raises ``LookError`` when the kernel does not tell.
        """
        kernel = Kernel()
        try:
            if anew or not self._routes:
                self._routes = kernel.routes([*self._services, *self._devices])
            return judge(
                Seen(
                    kernel.interfaces(),
                    {address: self._routes[address] for address in self._devices},
                    {address: self._routes[address] for address in self._services},
                    kernel.flowtables(),
                )
            )
        finally:
            kernel.close()


def look(services: Sequence[str], devices: Sequence[str]) -> tuple[Bypass, ...]:
    """Every way around the gate between these addresses, as things stand. Raises ``LookError``."""
    return Looker(services, devices).look(anew=True)
