"""One look at this network namespace, judged. Blocks for as long as the kernel takes: run it beside the loop.

What must not live here: when to look, what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.watch.bypass.judge import Behind, Bypass, Seen, behind, judge
from gateway.watch.bypass.rtnetlink import Kernel, LookError


class Looker:
    """Looks again and again; remembers who is behind which interface, which is dear to ask for many devices."""

    def __init__(self, services: Sequence[str], devices: Sequence[str]) -> None:
        self._services = tuple(services)
        self._devices = tuple(devices)
        self._behind: dict[int, Behind] | None = None
        #: Kept from look to look: when a netfilter netlink socket is closed, the kernel waits, with its lock on
        #: every ruleset held, until what earlier transactions removed is freed (nf_tables_api.c, nft_rcv_nl_event).
        #: Where thousands of elements change each second that takes seconds, in which no device can be cut.
        self._kernel: Kernel | None = None

    def aim(self, services: Sequence[str]) -> None:
        """Look for ways to these services from the next look on; may be called while one goes on."""
        self._services = tuple(services)

    def look(self, *, anew: bool, rest: float = 0.0) -> tuple[Bypass, ...]:
        """Every way around the gate. ``anew``: ask for the devices' routes again, about 5 us each, with ``rest``
        seconds between two handfuls of questions.

        Raises ``LookError`` when the kernel does not tell.
        """
        kernel = self._kernel = self._kernel or Kernel()
        try:
            if anew or self._behind is None:
                self._behind = behind(kernel.routes(self._devices, rest))
            services = dict(kernel.routes(self._services))
            return judge(Seen(kernel.interfaces(), self._behind, services, kernel.flowtables()))
        except LookError:
            self.close()  # the next look begins with questions of its own
            raise

    def close(self) -> None:
        """Release the sockets; another look makes new ones."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()


def look(services: Sequence[str], devices: Sequence[str]) -> tuple[Bypass, ...]:
    """Every way around the gate between these addresses, as things stand. Raises ``LookError``."""
    looker = Looker(services, devices)
    try:
        return looker.look(anew=True)
    finally:
        looker.close()
