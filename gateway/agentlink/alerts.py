"""A host's runtime alerts on their way to the gateway: a bounded queue there, a check and a limit here.

What must not live here: reading KubeArmor's streams, or what an alert means.

Losses are counted to the last one: each message says how many alerts its sender has ever handed over and what it
has lost by its own counts, so that what went missing with a link is the difference.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.agentlink import messages as wire
from gateway.core.model import Address, Instant
from gateway.kubearmor.alerts import AlertRefused, RuntimeAlert, check

#: Alerts waiting for a link, about 0.5 KB each.
OUTBOX_MOST = 2_000
#: Seconds between two messages, and alerts in one: a host says no more than 1,000 alerts a second.
TELL_SECONDS = 0.25
TELL_MOST = 250
#: Messages without alerts: counts and what is listened to, so that the gateway knows both.
QUIET_TURNS = 20
#: Alerts of one agent that the gateway takes in a second; an honest agent says no more.
TAKEN_MOST = 1_500
#: Seconds. An alert that waited longer for a link is told as one of that age: it is evidence of the past.
AGE_MOST = 86_400.0
#: Words of a report by a hostile agent that are looked at.
WORDS_MOST = 16


class Outbox:
    """The agent's end. ``put`` each alert; ``report`` makes the next message. When it is full the newest are lost:
    what was first is what a threshold needs first."""

    def __init__(self, run: int, most: int = OUTBOX_MOST) -> None:
        """``run``: a number that no other life of this agent has."""
        self._run = run
        self._most = most
        self._waiting: deque[tuple[RuntimeAlert, float]] = deque()
        self._told = 0
        self._quiet = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, alert: RuntimeAlert, at: Instant) -> None:
        """Take one alert."""
        if len(self._waiting) >= self._most:
            self.lost += 1
        else:
            self._waiting.append((alert, at.boot))

    def report(self, boot: float, counts: Counts) -> wire.Heard | None:
        """The next message, or None while there is nothing to say. ``counts``: the ear's."""
        self._quiet += 1
        if not self._waiting and self._quiet < QUIET_TURNS:
            return None
        self._quiet = 0
        count = min(len(self._waiting), TELL_MOST)
        alerts = tuple(_packed(*self._waiting.popleft(), boot) for _ in range(count))
        self._told += count
        lost = {**counts.lost, "outbox": self.lost}
        up, heard, breaks = tuple(counts.up), dict(counts.heard), dict(counts.breaks)
        return wire.Heard(self._run, self._told, up, heard, lost, breaks, alerts)


class Counts(NamedTuple):
    """What an ear has counted: open streams, messages and ends by stream, losses by reason."""

    up: Sequence[str] = ()
    heard: Mapping[str, int] = {}
    lost: Mapping[str, int] = {}
    breaks: Mapping[str, int] = {}


def _packed(alert: RuntimeAlert, heard: float, boot: float) -> wire.HeardAlert:
    source = b"" if alert.source is None else alert.source.packed
    age = max(0.0, boot - heard)
    return wire.HeardAlert(
        alert.what, alert.act, alert.policy, alert.severity, source, alert.subject, alert.detail, age
    )


class Inbox:
    """The gateway's end for one agent: adds up what its lives have counted, and hands its alerts on.

    ``reasons`` and ``streams`` are the words that are counted; what an agent writes beside them is dropped.
    """

    def __init__(
        self,
        hear: Callable[[RuntimeAlert, Instant], None] = lambda _alert, _at: None,
        streams: Sequence[str] = (),
        reasons: Sequence[str] = (),
    ) -> None:
        self._hear = hear
        self._streams, self._reasons = tuple(streams), tuple(reasons)
        self._run: int | None = None
        self._told = 0
        self._before: dict[tuple[str, str], int] = {}
        self._ends = 0.0
        self._taken = 0
        self.up: frozenset[str] = frozenset()
        self.heard: Counter[str] = Counter(dict.fromkeys(self._streams, 0))
        self.breaks: Counter[str] = Counter(dict.fromkeys(self._streams, 0))
        self.lost: Counter[str] = Counter(dict.fromkeys(self._reasons, 0))

    @property
    def told(self) -> bool:
        """Whether an agent has ever told anything: only where there is KubeArmor it does."""
        return self._run is not None

    def detached(self) -> None:
        """The link is gone: what is listened to there is not known."""
        self.up = frozenset()

    def take(self, message: wire.Heard, now: Instant) -> None:
        """Take one message. Raises ``LinkProtocolError`` for one that no agent of ours writes."""
        if len(message.alerts) > TELL_MOST or message.told < len(message.alerts):
            raise wire.LinkProtocolError(f"{len(message.alerts)} alerts in one message of {message.told} ever")
        if message.run != self._run:
            # What a life of the agent told before is not missing here: another gateway had it, or nobody did.
            before = message.told - len(message.alerts) if self._run is None else 0
            self._run, self._told, self._before = message.run, before, {}
        missing = message.told - len(message.alerts) - self._told
        if missing < 0:
            raise wire.LinkProtocolError("an agent has told fewer alerts than before")
        self._told = message.told
        self.lost["link"] += missing
        self.up = frozenset(message.up[:WORDS_MOST]) & frozenset(self._streams)
        self._add("heard", self.heard, message.heard, self._streams)
        self._add("breaks", self.breaks, message.breaks, self._streams)
        self._add("lost", self.lost, message.lost, self._reasons)
        for packed in message.alerts:
            self._one(packed, now)

    def _add(self, word: str, to: Counter[str], counted: Mapping[str, int], known: Sequence[str]) -> None:
        for name in known:
            number = counted.get(name, 0)
            to[name] += max(0, number - self._before.get((word, name), 0))
            self._before[word, name] = number

    def _one(self, packed: wire.HeardAlert, now: Instant) -> None:
        if now.boot >= self._ends:
            self._ends, self._taken = now.boot + 1.0, 0
        if self._taken >= TAKEN_MOST:
            self.lost["source"] += 1
            return
        self._taken += 1
        try:
            alert = check(_unpacked(packed))
        except AlertRefused:
            self.lost["malformed"] += 1
            return
        age = min(max(0.0, packed.age), AGE_MOST)
        self._hear(alert, Instant(now.wall - age, now.boot - age))


def _unpacked(packed: wire.HeardAlert) -> RuntimeAlert:
    source = Address(packed.source, len(packed.source) * 8) if packed.source else None
    return RuntimeAlert(
        packed.what, packed.act, packed.policy, packed.severity, source, packed.subject, packed.detail
    )
