"""A small site without clockwork: implements the Directory, Operator and History ports over plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from gateway.control.ports import (
    DeviceView,
    Explained,
    Health,
    Overridden,
    ProofLine,
    Proven,
    ReadBack,
    SiteNow,
    TargetState,
)
from gateway.core.errors import NotNow
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
from gateway.core.policy import Book, DeviceClass, Level, Match, Override, Service

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


BOOK = Book(
    (Service("feed", IPv4Address("10.77.3.2"), 8001),),
    node_default="admitted",
    classes=(
        DeviceClass("cameras", Match((("class", "camera"),)), Level({Standing.TRUSTED: "admitted"}, max_age=900.0)),
        DeviceClass("doors", Match((("class", "door"),)), Level({Standing.TRUSTED: "probation"})),
    ),
)


class FakeSite:
    """Implements ``Directory``, ``Operator``, ``Overriding`` and ``History``; ``acts`` keeps what operators did.

    ``shut``: why nothing may be raised now.
    """

    def __init__(self, views: Iterable[DeviceView] = ()) -> None:
        self.all: dict[DeviceId, DeviceView] = {view.device.id: view for view in views}
        self.order: tuple[DeviceId, ...] = tuple(self.all)
        self.acts: list[tuple[str, DeviceId, str, str]] = []
        self.parts: list[Health] = [Health("journal", True, "writable"), Health("gateway/nft", True, "")]
        self.failure: Exception | None = None
        self.looked_at = 0
        self.shut = ""

    def inventory(self) -> Sequence[DeviceId]:
        return self.order

    def health(self) -> Sequence[Health]:
        return self.parts

    def view(self, device: DeviceId) -> DeviceView | None:
        self.looked_at += 1
        return self.all.get(device)

    def standing(self, device: DeviceId) -> Standing | None:
        view = self.all.get(device)
        return None if view is None else view.decision.standing

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
        held = transition if after is Standing.HELD else None
        self.all[device] = view._replace(decision=decision, records={SOURCE: record}, last=transition, held=held)
        return transition

    def override(self, device: DeviceId, profile: str, seconds: float, actor: str, reason: str) -> Overridden:
        view = self.all[device]
        if profile not in BOOK.profiles:
            raise ValueError(f"profile {profile!r} must be one of {', '.join(BOOK.profiles)}")
        if self.shut:
            raise NotNow(self.shut)
        word = Override(device, profile, NOW + seconds, actor, reason)
        self.acts.append((f"override {profile} {seconds:g}", device, actor, reason))
        decision = view.decision._replace(profile=profile, until=word.until)
        self.all[device] = view._replace(decision=decision, override=word)
        why = f"overridden by {actor} to {profile}: {reason}"
        return Overridden(device, view.decision.profile, profile, word.until, why)

    def end_override(self, device: DeviceId, actor: str, reason: str) -> Overridden:
        view = self.all[device]
        self.acts.append(("end-override", device, actor, reason))
        self.all[device] = view._replace(override=None)
        return Overridden(device, view.decision.profile, "admitted", None, f"ended by {actor}: {reason}")

    async def explained(self, device: DeviceId) -> Explained | None:
        view = self.view(device)
        if view is None:
            return None
        decision = view.decision
        admitted = "" if decision.profile == DENY else decision.profile
        answers = [
            ReadBack("gateway", "nft", address, decision.profile, decision.until, admitted, None, tombstone=False)
            for address in view.device.binding.addresses
        ]
        return Explained(view, BOOK, None, decision.standing, decision.until, answers, NOW)

    async def proven(self, device: DeviceId) -> Proven | None:
        view = self.view(device)
        if view is None:
            return None
        decision = view.decision
        head = ("gateway", "nft", "", "10.77.1.11", decision.profile, decision.until)
        lines = [
            ProofLine(*head, "verified", "inet ragate admitted4 { 10.77.1.11 expires 110.0s }", NOW),
            ProofLine(
                "gateway", "kubearmor", "kubearmor host policy", "", "", None, "cannot be read", "away", None
            ),
        ]
        return Proven(view, lines, NOW)

    def site(self) -> SiteNow:
        return SiteNow("normal", NOW, self.counts(), ("built-in: normal",), {})

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
