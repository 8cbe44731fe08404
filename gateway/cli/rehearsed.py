"""What a rehearsal found, for people and for machines. Pure: values in, lines or plain values out.

What must not live here: printing, exit codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gateway.console.text import clean, instant, span
from gateway.core.model import DeviceId
from gateway.core.rehearsal import NOW, Comparison, Differences, Differing, Group, Hypothesis, Shift, Span

Head = tuple[str, str, str, int]
"""The book before, the book after, where the states come from, and devices that the service treats otherwise."""

#: A table is worth a line when it changes, or when half of it is used.
_NEAR = 2

_WHEN = {NOW: "now", "trusted": "when trusted", "suspect": "when suspect"}


# --- plan, for people -------------------------------------------------------------------------------------------


def plan_lines(head: Head, found: Comparison, differences: Differences | None, limit: int) -> Iterator[str]:
    """What a tired person needs, first; then the devices by change, ``limit`` named in each, the rest counted."""
    before, after, states, strays = head
    yield _verdict(found)
    yield clean(f"{before} → {after}; {found.devices:,} devices, {states}")
    if strays:
        yield clean(
            f"careful: the service runs another book than {before}: {strays:,} devices have another profile"
        )
    for finding in found.findings:
        yield clean(f"{finding.severity}: {finding.subject}: {finding.what}; {finding.mend}")
    for group in found.groups:
        yield ""
        yield clean(f"{_WHEN[group.when]}: {_shift(group.shift)}")
        yield clean(f"  {_names(group.devices, limit)}")
    yield from _document_lines(found, limit)
    if differences is not None:
        yield ""
        yield from _replay_lines(differences, limit)


def _verdict(found: Comparison) -> str:
    if any(finding.severity == "error" for finding in found.findings):
        return "REFUSED: this book would not be taken; see the errors below."
    if not found.count():
        return "No access changes."
    now = [group for group in found.groups if group.when == NOW]
    parts = [f"{_count(now, 'less')} lose access now", f"{_count(now, 'more')} gain access now"]
    if other := _count(now, "other"):
        parts.append(f"{other} change otherwise now")
    parts.append(f"{found.count() - found.count(NOW):,} notice when they attest next or fall under suspicion")
    return f"Access changes for {found.count():,} of {found.devices:,} devices: {', '.join(parts)}."


def _count(groups: Sequence[Group], direction: str) -> str:
    number = sum(len(group.devices) for group in groups if group.shift.direction == direction)
    return f"{number:,}" if number or direction != "other" else ""


def _shift(shift: Shift) -> str:
    words = [shift.before if shift.before == shift.after else f"{shift.before} → {shift.after}"]
    if shift.lost:
        words.append(f"loses {', '.join(shift.lost)}")
    if shift.gained:
        words.append(f"gains {', '.join(shift.gained)}")
    if shift.rates != ("", ""):
        words.append(f"rate {shift.rates[0] or 'unbounded'} → {shift.rates[1] or 'unbounded'}")
    return "; ".join(words if len(words) > 1 else [*words, "the same services"])


def _names(devices: Sequence[DeviceId], limit: int) -> str:
    more = f" and {len(devices) - limit:,} more" if len(devices) > limit else ""
    return f"{len(devices):,}: {', '.join(devices[:limit])}{more}"


def _document_lines(found: Comparison, limit: int) -> Iterator[str]:
    budgets = [each for each in found.budgets if each.before != each.after or each.after * _NEAR >= each.limit]
    if found.documents.differ or budgets:
        yield ""
    for mark, keys in zip("+~-", found.documents, strict=True):
        yield from (clean(f"{mark} {key}") for key in keys[:limit])
        if len(keys) > limit:
            yield f"{mark} {len(keys) - limit:,} more"
    for budget in budgets:
        yield clean(
            f"budget {budget.subject}: {budget.before:,} → {budget.after:,} of {budget.limit:,} {budget.unit}"
        )


def _replay_lines(differences: Differences, limit: int) -> Iterator[str]:
    passed = span(differences.end - differences.begin)
    yield f"Replay of {passed}: {differences.events:,} events, {differences.seen:,} devices."
    less = sorted((each for each in differences.devices if each.less), key=lambda each: -each.less)
    more = sorted((each for each in differences.devices if each.more), key=lambda each: -each.more)
    other = sorted((each for each in differences.devices if each.other), key=lambda each: -each.other)
    if not differences.devices:
        yield "Nobody would have been cut or admitted differently."
    for word, found, seconds in (
        ("would have been cut, or reached less", less, "less"),
        ("would have been admitted, or reached more", more, "more"),
        ("would have had another profile", other, "other"),
    ):
        if found:
            total = sum(getattr(each, seconds) for each in found)
            yield f"{len(found):,} {word}, for {span(total)} in all:"
            yield from (clean(f"  {_differing(each, getattr(each, seconds))}") for each in found[:limit])
            if len(found) > limit:
                yield f"  and {len(found) - limit:,} more"
    if differences.skipped:
        yield f"{differences.skipped:,} events were left out: the inventory no longer lists their device or source."
    if differences.rejoined:
        yield f"{differences.rejoined:,} times a restart brought a device's two histories together."


def _differing(each: Differing, seconds: float) -> str:
    times = "once" if each.spans == 1 else f"{each.spans:,} times"
    longest = each.longest
    return (
        f"{each.device}: {span(seconds)}, {times}; first {instant(each.first.start)}; longest from "
        f"{instant(longest.start)} to {instant(longest.end)}: {longest.would} instead of {longest.was}"
    )


# --- what-if, for people ----------------------------------------------------------------------------------------


def hypothesis_lines(event: str, book: str, states: str, found: Hypothesis) -> Iterator[str]:
    """What would happen, why, and the rules that say so."""
    old, new = found.before, found.after
    device = new.device
    same = "stays" if old.standing is new.standing else f"{old.standing.label} →"
    yield clean(f"If {device} {event}: it {'stays' if same == 'stays' else 'goes ' + same} {new.standing.label}.")
    for transition in found.transitions:
        yield clean(f"Why: {transition.why} ({transition.source}, {transition.effect.value})")
    if found.shift is None:
        until = "" if new.until is None else f" until {instant(new.until)}"
        yield clean(f"Access: as now, profile {new.profile}{until}")
    else:
        yield clean(f"Access: {_shift(found.shift)}")
        if new.until is not None:
            yield f"Until: {instant(new.until)}"
    yield "Decision:"
    yield from (clean(f"  {line}") for line in new.chain)
    yield clean(f"Nothing was changed; book {book}, {states}.")


# --- for machines -----------------------------------------------------------------------------------------------


def plain_plan(head: Head, found: Comparison, differences: Differences | None) -> dict[str, Any]:
    """Everything, nothing left out. Times are UNIX seconds."""
    before, after, states, strays = head
    return {
        "before": before,
        "after": after,
        "states": states,
        "running_otherwise": strays,
        "devices": found.devices,
        "changing": {"all": found.count(), **{when: found.count(when) for when in _WHEN}},
        "groups": [
            {"when": group.when, **_plain_shift(group.shift), "devices": list(group.devices)}
            for group in found.groups
        ],
        "documents": found.documents._asdict(),
        "budgets": [budget._asdict() for budget in found.budgets],
        "findings": [finding._asdict() for finding in found.findings],
        "replay": None if differences is None else _plain_differences(differences),
    }


def _plain_shift(shift: Shift) -> dict[str, Any]:
    return {
        "direction": shift.direction,
        "profile": {"before": shift.before, "after": shift.after},
        "gained": list(shift.gained),
        "lost": list(shift.lost),
        "rate": {"before": shift.rates[0], "after": shift.rates[1]},
    }


def _plain_differences(differences: Differences) -> dict[str, Any]:
    def plain(found: Span) -> dict[str, Any]:
        return found._asdict()

    return differences._asdict() | {
        "devices": [
            each._asdict() | {"first": plain(each.first), "longest": plain(each.longest)}
            for each in differences.devices
        ]
    }


def plain_hypothesis(event: str, book: str, states: str, found: Hypothesis) -> dict[str, Any]:
    """What would happen, in full."""
    return {
        "device": found.after.device,
        "event": event,
        "book": book,
        "states": states,
        "standing": {"before": found.before.standing.label, "after": found.after.standing.label},
        "profile": {"before": found.before.profile, "after": found.after.profile},
        "until": found.after.until,
        "why": [
            {"source": each.source, "effect": each.effect.value, "why": each.why} for each in found.transitions
        ],
        "gained": [] if found.shift is None else list(found.shift.gained),
        "lost": [] if found.shift is None else list(found.shift.lost),
        "chain": list(found.after.chain),
    }
