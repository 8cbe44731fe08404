"""What a device looks like from outside: plain values for JSON, made from what the clockwork shows.

What lives here: the shapes of the API, pure. What must not: HTTP, or an opinion about a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.control.ports import DeviceView, Explained, Health, Overridden, Proven, ReadBack, SiteNow, TargetState
from gateway.core.model import Decision, Record, Transition
from gateway.core.policy import Book, Override, Service, explain


def device_row(view: DeviceView) -> dict[str, Any]:
    """One device as in a list. ``deadline`` and ``lease_until`` are UNIX seconds, ``verified_ms`` milliseconds.

    ``last`` is the newest transition since this process started, None before there is one. ``newest`` is when the
    newest verdict that counted was issued (UNIX seconds), also one of before the start; None without any. A target
    is ``pending`` while it has not been told the profile: a verdict raises only once it is in the journal.
    ``held``: when, by whom and why an operator holds it; None where nobody does, or did so before this process.
    ``replayable`` names the sources at whose verifier evidence from before the newest pass could be sent again.
    """
    return {
        "id": view.device.id,
        "standing": view.decision.standing.label,
        "profile": view.decision.profile,
        "deadline": view.decision.until,
        "lease_until": view.lease_until,
        "addresses": [str(address) for address in view.device.binding.addresses],
        "anchor": view.device.binding.anchor.value,
        "labels": dict(view.device.labels),
        "last": None if view.last is None else _last(view.last),
        "newest": max((record.newest for record in view.records.values()), default=0) or None,
        "verified_ms": view.last_ms,
        "replayable": list(view.replayable),
        "targets": [_target(target, view.decision) for target in view.targets],
        "override": None if view.override is None else _override(view.override),
        "held": None if view.held is None else _held(view.held),
    }


def device_detail(view: DeviceView, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One device with the decision's chain, its records per source and its newest verdicts.

    Here ``last`` is the newest transition among the verdicts of the journal when this process has seen none yet.
    """
    row = device_row(view)
    if row["last"] is None:
        row["last"] = next((_remembered(fact) for fact in verdicts if fact["kind"] == "transition"), None)
    row["targets"] = [{**target, **_taken(target["target"], verdicts)} for target in row["targets"]]
    return {
        **row,
        "chain": list(view.decision.chain),
        "records": {source: _record(record) for source, record in view.records.items()},
        "verdicts": [dict(row) for row in verdicts],
    }


def _taken(target: str, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How long the newest verdict that this target has answered took: milliseconds from its last byte until it was
    accepted there, and until it was read back; None where it was not. ``verdict_at``: when it came, in UNIX
    seconds."""
    for row in verdicts:
        for outcome in row.get("outcomes") or ():
            if outcome["target"] == target:
                return {
                    "verdict_at": row["at"],
                    "accepted_ms": outcome["accepted_ms"],
                    "verified_ms": outcome["verified_ms"],
                }
    return {"verdict_at": None, "accepted_ms": None, "verified_ms": None}


def explanation(found: Explained, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One device as ``device_detail``, and what its decision rests on, in the order in which it was made.

    ``own``      its standing and deadline before address conflicts; ``shared`` the device that lowers them, if any.
    ``levels``   each rule of each level: whether it matched, because of what, what it says, whether it was used.
    ``reaches``  the services of the profile, ``rate`` the bound on its new connections.
    ``rules``    for each target and address what is wanted there, and what was read there just now.
    """
    view, book = found.view, found.book
    looked = explain(view.device, found.standing, found.deadline, book, found.shared, view.override, found.at)
    profile = view.decision.profile
    known = book.profiles.get(profile)
    rate = None if known is None else known.rate
    return {
        **device_detail(view, verdicts),
        "own": {"standing": found.standing.label, "deadline": found.deadline},
        "shared": None if found.shared is None else {"device": found.shared[0], "standing": found.shared[1].label},
        "levels": [line._asdict() for line in looked],
        "reaches": _services(profile, book),
        "rate": None if rate is None else {"new_connections": rate.new_connections, "per": rate.per},
        "rules": [_read_back(line) for line in found.answers],
    }


def proof(found: Proven) -> dict[str, Any]:
    """What every target shows of one device. ``at`` and each ``read_at`` are UNIX seconds; ``result`` is
    ``verified``, ``not found``, ``differs`` or ``cannot be read``; ``proven`` when every required target has
    verified it at each address."""
    decision = found.view.decision
    required = {target.target for target in found.view.targets if target.required}
    gates = [line for line in found.lines if not line.part]
    return {
        "id": found.view.device.id,
        "standing": decision.standing.label,
        "profile": decision.profile,
        "at": found.at,
        "proven": bool(gates) and all(line.result == "verified" for line in gates if line.target in required),
        "lines": [line._asdict() for line in found.lines],
    }


def _services(profile: str, book: Book) -> list[dict[str, Any]]:
    def plain(service: Service) -> dict[str, Any]:
        return {
            "name": service.name,
            "address": str(service.address),
            "port": service.port,
            "protocol": service.protocol,
        }

    admitting = profile in book.profiles and book.profiles[profile].admits
    return [plain(service) for service in book.reach(profile)] if admitting else []


def _read_back(line: ReadBack) -> dict[str, Any]:
    return {**line._asdict(), "address": str(line.address)}


def _override(word: Override) -> dict[str, Any]:
    return {"profile": word.profile, "until": word.until, "actor": word.actor, "reason": word.reason}


def _held(word: Transition) -> dict[str, Any]:
    return {"at": word.event.at, "actor": word.event.actor, "reason": word.event.reason}


def overridden(done: Overridden) -> dict[str, Any]:
    """The answer to an override or its end."""
    return done._asdict()


def site_now(site: SiteNow) -> dict[str, Any]:
    """The site's profile and what it rests on."""
    return {
        "profile": site.profile,
        "since": site.since,
        "counts": dict(site.counts),
        "chain": list(site.chain),
        "alarms": dict(site.alarms),
    }


def acted(transition: Transition) -> dict[str, Any]:
    """The answer to an operator's act."""
    return {
        "device": transition.device,
        "before": transition.before.standing.label,
        "after": transition.after.standing.label,
        "why": transition.why,
    }


def readiness(parts: Sequence[Health]) -> dict[str, Any]:
    """Ready when every part is."""
    return {
        "ready": all(part.ready for part in parts),
        "parts": [{"part": part.part, "ready": part.ready, "detail": part.detail} for part in parts],
    }


def _last(transition: Transition) -> dict[str, Any]:
    return {
        "event": transition.event.kind.value,
        "issued_at": transition.event.issued_at,
        "at": transition.event.at,
        "effect": transition.effect.value,
        "why": transition.why,
        "before": transition.before.standing.label,
        "after": transition.after.standing.label,
    }


#: What is told of a transition.
_LAST = ("event", "issued_at", "at", "effect", "why", "before", "after")


def _remembered(fact: Mapping[str, Any]) -> dict[str, Any]:
    """As ``_last``, from a transition's row of the journal."""
    return {name: fact[name] for name in _LAST}


#: Why a target that is in order is not done: an admission never precedes its entry in the journal.
UNTOLD = "{profile} is decided, and admits when the journal has it"


#: How each backend reads back what stands.
READ_BACK = {
    "nft": "element read from this host's kernel",
    "relay": "the relay's table read, no open connection left of a cut device",
    "link": "read back by the agent on its own host",
}


def _target(target: TargetState, decision: Decision) -> dict[str, Any]:
    state, detail = target.state, target.detail
    if decision.until is not None and target.wanted != decision.profile and state != "failed":
        state, detail = "pending", UNTOLD.format(profile=decision.profile)
    return {
        "target": target.target,
        "backend": target.backend,
        "required": target.required,
        "wanted": target.wanted,
        "state": state,
        "detail": detail,
        "latest_end": target.latest_end,
        "verified_at": target.verified_at,
        "verified_how": READ_BACK.get(target.backend, "read back"),
    }


def _record(record: Record) -> dict[str, Any]:
    return {
        "standing": record.standing.label,
        "deadline": record.deadline,
        "newest": record.newest,
        "epoch": record.epoch,
        "debt": record.debt,
        "suspected_since": record.suspected_since,
        "hold": record.hold,
    }
