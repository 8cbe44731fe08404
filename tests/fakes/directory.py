"""A small site without clockwork: implements the Directory, Operator and History ports over plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.control.ports import DeviceView, Health, TargetState
from gateway.core.model import (
    DENY,
    Address,
    AnchorKind,
    Binding,
    Decision,
    Device,
    DeviceId,
    Effect,
    Event,
    EventKind,
    Record,
    SourceName,
    Standing,
    Transition,
)

SOURCE = SourceName("verifier")
NOW = 1_795_283_400.0


def make_view(
    name: str,
    standing: Standing = Standing.TRUSTED,
    address: str = "10.77.1.11",
    now: float = NOW,
) -> DeviceView:
    """A device as the clockwork would show it, attested 60 s before ``now``."""
    device = DeviceId(name)
    admits = standing is Standing.TRUSTED
    deadline = now + 840.0 if admits else None
    profile = "admitted" if admits else DENY
    record = Record(standing=standing, deadline=deadline, newest=int(now) - 60)
    event = Event(EventKind.PASSED if admits else EventKind.FAILED, now - 60.0, int(now) - 60, reason="PASS")
    last = Transition(
        device,
        SOURCE,
        event,
        Record(),
        record,
        Effect.RAISED if admits else Effect.LOWERED,
        "a signed pass from verifier" if admits else "a signed failure from verifier",
    )
    return DeviceView(
        device=Device(
            device,
            SOURCE,
            Binding(device, (Address.parse(address),), AnchorKind.UPSTREAM),
            (("class", "camera"),),
        ),
        decision=Decision(device, standing, profile, deadline, ("built-in: deny", f"node default: {profile}")),
        records={SOURCE: record},
        lease_until=now + 110.0 if admits else None,
        targets=(TargetState("gateway", "nft", True, profile, "verified", "", now + 110.0 if admits else None),),
        last=last,
        last_ms=1.25,
    )


class FakeSite:
    """Implements ``Directory``, ``Operator`` and ``History``; ``acts`` keeps what operators did."""

    def __init__(self, views: Iterable[DeviceView] = ()) -> None:
        self.all: dict[DeviceId, DeviceView] = {view.device.id: view for view in views}
        self.order: tuple[DeviceId, ...] = tuple(self.all)
        self.acts: list[tuple[str, DeviceId, str, str]] = []
        self.parts: list[Health] = [Health("journal", True, "writable"), Health("gateway/nft", True, "")]
        self.failure: Exception | None = None
        self.looked_at = 0

    def inventory(self) -> Sequence[DeviceId]:
        return self.order

    def health(self) -> Sequence[Health]:
        return self.parts

    def view(self, device: DeviceId) -> DeviceView | None:
        self.looked_at += 1
        return self.all.get(device)

    def views(self) -> Iterable[DeviceView]:
        return self.all.values()

    def counts(self) -> Mapping[str, int]:
        counts = {standing.label: 0 for standing in Standing}
        for view in self.all.values():
            counts[view.decision.standing.label] += 1
        return counts

    def hold(self, device: DeviceId, actor: str, reason: str) -> Transition:
        return self._act("hold", EventKind.HELD, device, actor, reason, Standing.HELD)

    def release(self, device: DeviceId, actor: str, reason: str) -> Transition:
        return self._act("release", EventKind.RELEASED, device, actor, reason, Standing.LAPSED)

    def _act(
        self, verb: str, kind: EventKind, device: DeviceId, actor: str, reason: str, after: Standing
    ) -> Transition:
        view = self.all[device]
        self.acts.append((verb, device, actor, reason))
        before = view.records[SOURCE]
        record = Record(standing=after, hold=after is Standing.HELD)
        transition = Transition(
            device,
            SOURCE,
            Event(kind, NOW, reason=reason, actor=actor),
            before,
            record,
            Effect.LOWERED if after < before.standing else Effect.RAISED,
            f"{kind.value} by {actor}: {reason}",
        )
        decision = view.decision._replace(standing=after, profile=DENY, until=None)
        self.all[device] = view._replace(decision=decision, records={SOURCE: record}, last=transition)
        return transition

    async def verdicts(self, device: DeviceId, limit: int) -> Sequence[Mapping[str, Any]]:
        if self.failure is not None:
            raise self.failure
        row = {
            "seq": 7,
            "at": NOW - 60.0,
            "kind": "transition",
            "device": device,
            "source": SOURCE,
            "event": "passed",
            "issued_at": int(NOW) - 60,
            "effect": "raised",
            "before": "unknown",
            "after": "trusted",
            "why": "a signed pass from verifier",
            "refusal": None,
            "outcome": {"target": "gateway", "backend": "nft", "state": "verified", "verified_ms": 1.25},
        }
        refused = {"seq": 6, "at": NOW - 70.0, "kind": "refusal", "refusal": "replay", "why": "seen before"}
        return [row, refused][:limit]

    async def refusals(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return []
