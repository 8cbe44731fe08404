"""What becomes of runtime alerts: facts, and by the book's thresholds a device that is suspect, or an alarm.

An alert is a hint: it can lower a standing and never raise one, and it names a device by nothing but an anchored
binding of the address that the packets came from. What must not live here: reading alerts, enforcing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.control.alert_windows import Windows
from gateway.control.devices import Devices
from gateway.control.ports import Notice
from gateway.core.binding import backs
from gateway.core.model import Address, DeviceId, Hint, Instant, SourceName
from gateway.core.policy import AlertThreshold
from gateway.kubearmor.alerts import ACTS, WHATS, RuntimeAlert

#: Seconds in which equal alerts become one fact: a blocked device that scans makes one alert a port.
GATHERED = 10.0
#: Different facts of one host in that time; whatever is more becomes one fact about how many there were.
GATHERED_MOST = 64

#: What speaks of no deed of anybody: it is told, and counts for no threshold.
_ABOUT_ITSELF = frozenset({"throttled", "daemon", "denial"})
_DEEDS = frozenset({"blocked", "audited"})


@dataclass(frozen=True, slots=True)
class Watched:
    """One host that is listened to. ``source``: the name of its alerts as a source of hints. ``own``: names of the
    gateway's own policies there: what they block says no more than the standing that made them. ``severity_of``:
    that of a policy that stands there, by its name, for alerts that have lost theirs; 0: not known."""

    source: SourceName
    own: frozenset[str] = frozenset()
    severity_of: Callable[[str], int] = field(default=lambda _: 0)


class _Key(NamedTuple):
    target: str
    what: str
    act: str
    policy: str
    subject: str


class _Gathered:
    __slots__ = ("at", "detail", "times")

    def __init__(self, detail: str, at: float) -> None:
        self.detail = detail
        self.at = at
        self.times = 0


class Alerts:
    """Implements the ``Timed`` port and hears the alerts of every ``watched`` target.

    ``hint`` takes a hint at a moment, from a peer (for people), and says whether it lowered anything.
    """

    def __init__(
        self, devices: Devices, hint: Callable[[Hint, Instant, str], bool], watched: Mapping[str, Watched]
    ) -> None:
        self._devices = devices
        self._hint = hint
        self._watched = watched
        self._of_devices, self._of_targets = Windows(), Windows()
        self._gathered: dict[_Key, _Gathered] = {}
        self._more: Counter[str] = Counter()
        self._flush_at: float | None = None
        self._raised: dict[str, str] = {}
        #: Alerts taken, by target, what and act.
        self.counts: Counter[tuple[str, str, str]] = Counter(
            {(target, what, act): 0 for target in watched for what in WHATS for act in ACTS if _occurs(what, act)}
        )

    @property
    def forgotten(self) -> int:
        """Devices whose alerts were given up counting because too many others had some."""
        return self._of_devices.forgotten

    def raised(self) -> Mapping[str, str]:
        """Targets whose alerts have reached the book's threshold for an alarm, with a sentence each."""
        return self._raised

    def heard(self, target: str, alert: RuntimeAlert, at: Instant) -> None:
        """Take one alert of a target. Raises ``KeyError`` for a target that is not listened to."""
        watched = self._watched[target]
        self.counts[target, alert.what, alert.act] += 1
        self._gather(target, alert, at)
        severity = alert.severity or watched.severity_of(alert.policy)
        if alert.what in _ABOUT_ITSELF or alert.act not in _DEEDS or alert.policy in watched.own:
            return
        thresholds = self._devices.book.thresholds
        self._alarm(target, alert, severity, thresholds.alarm, at)
        threshold = thresholds.suspect
        self._of_devices.use(threshold)
        if threshold is None or severity < threshold.severity or alert.source is None:
            return
        for device in self._named(alert.source):
            if self._of_devices.add(device, at.boot):
                self._of_devices.forget(device)
                self._reached(device, target, watched.source, alert, threshold, at)

    def _named(self, address: Address) -> list[DeviceId]:
        """Devices that an anchored binding ties to the address: everybody else's packets could have any source."""
        owners = (self._devices.slot(device) for device in self._devices.addresses.owners(address))
        return [slot.device.id for slot in owners if slot is not None and backs(slot.device.binding, address)]

    def _reached(
        self,
        device: DeviceId,
        target: str,
        source: SourceName,
        alert: RuntimeAlert,
        threshold: AlertThreshold,
        at: Instant,
    ) -> None:
        said = f"{_words(threshold)}; the last: {alert.policy or 'no policy'}, {alert.detail}"
        lowered = self._hint(Hint(device, source, True, said), at, target)
        what = "it is suspect from here on" if lowered else "its standing is no higher, or hints were too many"
        self._devices.notice(Notice("alerts", device, f"{device} at {target}: {said}; {what}", at.wall))
        self._devices.commit()

    # --- the alarm of a target ------------------------------------------------------------------------------

    def _alarm(
        self, target: str, alert: RuntimeAlert, severity: int, threshold: AlertThreshold | None, at: Instant
    ) -> None:
        self._of_targets.use(threshold)
        if threshold is None or severity < threshold.severity:
            return
        if self._of_targets.add(target, at.boot) and target not in self._raised:
            subject = f"{alert.policy or 'no policy'} at {alert.subject}, {alert.detail}"
            self._raised[target] = f"{_words(threshold)}; the last: {subject}"
            self._devices.notice(Notice("alerts", target, f"{target}: {self._raised[target]}", at.wall))

    def _settle(self, now: Instant) -> None:
        self._of_targets.use(self._devices.book.thresholds.alarm)
        for target in [name for name in self._raised if not self._of_targets.standing(name, now.boot)]:
            del self._raised[target]
            said = f"{target}: fewer alerts than the book's threshold again"
            self._devices.notice(Notice("alerts", target, said, now.wall))

    # --- facts ----------------------------------------------------------------------------------------------

    def _gather(self, target: str, alert: RuntimeAlert, at: Instant) -> None:
        key = _Key(target, alert.what, alert.act, alert.policy, str(alert.source or alert.subject))
        found = self._gathered.get(key)
        if found is None:
            if sum(each.target == target for each in self._gathered) >= GATHERED_MOST:
                self._more[target] += 1
                return
            found = self._gathered[key] = _Gathered(alert.detail, at.wall)
            if self._flush_at is None:
                self._flush_at = at.boot + GATHERED
        found.times += 1

    def flush(self, now: Instant) -> None:
        """Tell what was gathered."""
        self._flush_at = None
        for key, found in self._gathered.items():
            policy = f" by {key.policy}" if key.policy else ""
            often = f" ({found.times} times)" if found.times > 1 else ""
            said = f"{key.what} {key.act}{policy}, {key.subject}: {found.detail}{often}"
            self._devices.notice(Notice("alert", key.target, said, found.at, found.times))
        for target, times in self._more.items():
            said = f"{times} more alerts of other kinds than the first {GATHERED_MOST} within {GATHERED:g} s"
            self._devices.notice(Notice("alert", target, said, now.wall, times))
        self._gathered.clear()
        self._more.clear()

    # --- time -----------------------------------------------------------------------------------------------

    def next(self) -> float | None:
        """When what was gathered is told."""
        return self._flush_at

    def turn(self, now: Instant) -> None:
        """Tell what is due; end alarms that are over."""
        if self._flush_at is not None and now.boot >= self._flush_at:
            self.flush(now)
        if self._raised:
            self._settle(now)

    def jumped(self, now: Instant) -> None:
        """Windows are measured on the boot-time clock."""


def _words(threshold: AlertThreshold) -> str:
    many = "alert" if threshold.alerts == 1 else "alerts"
    return f"{threshold.alerts} {many} of severity {threshold.severity} or more within {threshold.within:g} s"


def _occurs(what: str, act: str) -> bool:
    """Metrics begin with the pairs that there can be."""
    if what in {"throttled", "daemon"}:
        return act == "told"
    return act == "blocked" if what == "denial" else True
