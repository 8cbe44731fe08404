"""The ear at this host's KubeArmor, what agents heard at theirs, and what follows of it: made and wired.

None of it is needed for the service to be ready: an alert that is not heard lowers nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any

from gateway.agentlink.alerts import Inbox
from gateway.app.parts import kubearmor
from gateway.config import Config, alert_sources
from gateway.console.alerting import Listened
from gateway.console.metrics import Metrics
from gateway.control.admit import Admit
from gateway.control.alerts import Alerts, Watched
from gateway.control.devices import Devices
from gateway.control.ports import Advisory, Clock, Health, Notice
from gateway.control.severities import SeveritiesByTarget
from gateway.enforce.kubearmor import KubeArmorAdvisory, own_names
from gateway.watch.kubearmor import LOSSES, STREAMS, Ear


class Listening:
    """Everything that hears runtime alerts, of one service."""

    def __init__(
        self, config: Config, admit: Admit, devices: Devices, layers: Mapping[str, Advisory], clock: Clock
    ) -> None:
        """``layers`` by target; that of this host, where it is KubeArmor's hand, is told when the streams are lost.
        Whoever declares documents, here or at agents, does it to what ``severities`` stands before."""
        self._target = config.target.name
        self._devices = devices
        self._clock = clock
        layer = layers.get(self._target)
        self._layer = layer if isinstance(layer, KubeArmorAdvisory) else None
        self.severities = SeveritiesByTarget()
        names = {remote.name: remote.agent for remote in config.remotes}
        sources = alert_sources(config.target, config.remotes)
        watched = {
            target: Watched(source, own_names(names.get(target, target)), partial(self.severities.of, target))
            for target, source in sources.items()
        }
        self.alerts = Alerts(devices, admit.hint, watched)
        self.inboxes: Mapping[str, Inbox] = {
            name: Inbox(partial(self.alerts.heard, name), tuple(STREAMS), LOSSES) for name in names
        }
        self._ear: Ear | None = None
        if config.target.kubearmor is not None and self._target in sources:
            hear = partial(self.alerts.heard, self._target)
            self._ear = kubearmor.ear(config.target.kubearmor, clock, hear, self._lost)

    def _lost(self, why: str) -> None:
        if self._layer is not None:
            self._layer.disturbed(why)
        self._devices.notice(Notice("kubearmor", self._target, why, self._clock.now().wall))
        self._devices.commit()

    def runs(self) -> Iterator[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """Everything that works until cancelled, by name."""
        if self._ear is not None:
            yield "ear", self._ear.run

    def finish(self) -> None:
        """Tell what was gathered (orderly stop)."""
        self.alerts.flush(self._clock.now())
        self._devices.commit()

    def health(self) -> Iterator[Health]:
        """What an operator should know; none of it makes the service unready."""
        if self._ear is not None:
            yield Health("alerts", True, self._ear.state())
        for target, said in self.alerts.raised().items():
            yield Health(f"alarm {target}", True, said)

    def wire(self, metrics: Metrics) -> None:
        """Let the metrics read what these parts count."""
        listened: dict[str, Callable[[], Listened]] = {}
        ear = self._ear
        if ear is not None:
            tally = ear.tally
            listened[self._target] = lambda: Listened(tally.up, tally.heard, tally.lost, tally.breaks, tally.pauses)
        for name, inbox in self.inboxes.items():
            listened[name] = partial(_of_inbox, inbox)
        metrics.alerted.wire(listened, lambda: self.alerts.counts, self.alerts.raised)


def _of_inbox(inbox: Inbox) -> Listened:
    if not inbox.told:  # whether that host has KubeArmor at all only its agent knows
        return Listened((), {}, {}, {}, {})
    return Listened(inbox.up, inbox.heard, inbox.lost, inbox.breaks, {})
