"""One look at this network namespace, judged. Blocks for as long as the kernel takes: run it beside the loop.

What must not live here: when to look, what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.watch.bypass.judge import Behind, Bypass, Seen, behind, judge
from gateway.watch.bypass.rtnetlink import Kernel


class Looker:
    """Looks again and again; remembers who is behind which interface, which is dear to ask for many devices."""

    def __init__(self, services: Sequence[str], devices: Sequence[str]) -> None:
        self._services = tuple(services)
        self._devices = tuple(devices)
        self._behind: dict[int, Behind] | None = None

    def aim(self, services: Sequence[str]) -> None:
        """Look for ways to these services from the next look on; may be called while one goes on."""
        self._services = tuple(services)

    def look(self, *, anew: bool, rest: float = 0.0) -> tuple[Bypass, ...]:
        """Every way around the gate. ``anew``: ask for the devices' routes again, about 5 us each, with ``rest``
        seconds between two handfuls of questions.

        Raises ``LookError`` when the kernel does not tell.
        """
        kernel = Kernel()
        try:
            if anew or self._behind is None:
                self._behind = behind(kernel.routes(self._devices, rest))
            services = dict(kernel.routes(self._services))
            return judge(Seen(kernel.interfaces(), self._behind, services, kernel.flowtables()))
        finally:
            kernel.close()


def look(services: Sequence[str], devices: Sequence[str]) -> tuple[Bypass, ...]:
    """Every way around the gate between these addresses, as things stand. Raises ``LookError``."""
    return Looker(services, devices).look(anew=True)
