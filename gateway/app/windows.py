"""The windows of a service: where people and programs look in, and where operators act.

What lives here: what the windows read from the parts, and what an operator's answer waits for. What must not: what
is answered, and how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.app.assembly import Assembly
from gateway.console.api import Console, Windows
from gateway.console.operator import OperatorWindow
from gateway.control.explained import Explainer
from gateway.control.ports import Health, Journal
from gateway.core.errors import JournalError
from gateway.enforce.kubearmor import KubeArmorAdvisory

KEPT_SECONDS = 5.0
"""Seconds that an operator's act may take to become durable before the answer says that it is not."""


def make_windows(
    parts: Assembly, health: Callable[[], Sequence[Health]], hosts: Sequence[str]
) -> tuple[Console, OperatorWindow]:
    """The console, which accepts these ``hosts`` as its names, and the operator's window. Neither is started."""
    devices, reloader = parts.devices, parts.reloader
    layers = {each.name: each.prove for each in parts.layers.values() if isinstance(each, KubeArmorAdvisory)}
    explainer = Explainer(devices, parts.gates, parts.clock, layers)
    inventory = tuple(device.id for device in parts.config.devices)
    windows = Windows(
        directory=devices,
        history=parts.journal.history,
        inventory=lambda: inventory,
        health=health,
        exposition=parts.metrics.exposition,
        explained=explainer.explained,
        proven=explainer.proven,
        site=parts.site.now,
        book=reloader.view,
    )
    place = parts.config.operator
    operator = OperatorWindow(
        windows,
        devices,
        parts.overrides,
        place.socket,
        place.group,
        reload=reloader.ask,
        further=(parts.hinting.asking,),
        kept=lambda: kept(parts.journal),
    )
    return Console(windows, parts.console, hosts), operator


async def kept(journal: Journal) -> str:
    """Wait until the journal has what was handed to it so far; why it has not, "" when it has."""
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def settled(error: JournalError | None) -> None:
        if not done.done():
            done.set_result("" if error is None else str(error))

    try:
        journal.record((), settled)
        async with asyncio.timeout(KEPT_SECONDS):
            return await done
    except TimeoutError:
        return f"the journal has not answered for {KEPT_SECONDS:g} s"
    except JournalError as error:
        return str(error)
