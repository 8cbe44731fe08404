"""Why a device gets what it gets: every rule of every level, whether it matched and by what, and which were used.

What lives here: the explanation of one decision, made when somebody asks. What must not: deciding (an explanation
that disagreed with the decision would be worse than none), words for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from gateway.core.model import DENY, Device, DeviceId, Standing
from gateway.core.policy.book import Book, Deployment, DeviceClass, Level, Match, Override
from gateway.core.policy.rulings import matched, matches, says

LevelName = Literal["built-in", "node default", "deployment", "class", "device", "override"]

_SUSPECT, _TRUSTED = Standing.SUSPECT, Standing.TRUSTED


class Looked(NamedTuple):
    """One rule, as it was looked at.

    ``matched``  whether it is for this device, and ``because`` of what: label, id pattern, prefix.
    ``says``     what it gives, and the marks that it sets.
    ``used``     whether the decision rests on it: without the rules that were not used it is the same.
    """

    level: LevelName
    name: str
    matched: bool
    because: str
    says: str
    used: bool


_Named = tuple[LevelName, str]


def explain(
    device: Device,
    standing: Standing,
    deadline: float | None,
    book: Book,
    conflict: tuple[DeviceId, Standing] | None = None,
    override: Override | None = None,
    now: float | None = None,
) -> tuple[Looked, ...]:
    """Return every rule of every level, least specific first, for the arguments that ``decide`` was given."""
    word = override if override is not None and now is not None and now < override.until else None
    used = _used(device, _asked(standing, conflict), book, word, runs=deadline is not None)
    lines = [
        Looked("built-in", "", matched=True, because="it is for every device", says=DENY, used=True),
        Looked(
            "node default", "", matched=True, because="it is for every device", says=_says(book.default), used=True
        ),
    ]
    rules: list[tuple[LevelName, Deployment | DeviceClass]] = [("deployment", rule) for rule in book.deployments]
    rules += [("class", rule) for rule in book.classes]
    for level, rule in rules:
        meant = matches(rule.match, device)
        lines.append(Looked(level, rule.name, meant, because(rule.match, device), _says(rule.level), used=True))
    own = book.own(device.id)
    if own is not None:
        lines.append(
            Looked("device", device.id, matched=True, because="it names the device", says=_says(own), used=True)
        )
    if override is not None:
        in_force = "in force" if word is not None else "over"
        told = f"set by {override.actor}: {override.reason}"
        lines.append(Looked("override", device.id, word is not None, f"{in_force}, {told}", override.profile, True))
    return tuple(line._replace(used=(line.level, line.name) in used) for line in lines)


def _asked(standing: Standing, conflict: tuple[DeviceId, Standing] | None) -> frozenset[Standing]:
    """The standings whose rulings decide: where an address is shared, the other's count too."""
    return frozenset({standing} if conflict is None else {standing, conflict[1], min(standing, conflict[1])})


def _used(
    device: Device, asked: Iterable[Standing], book: Book, word: Override | None, *, runs: bool
) -> frozenset[_Named]:
    used: set[_Named] = set()
    levels = _levels(device, book)
    for standing in asked:
        operands = {standing, _TRUSTED} if standing is _SUSPECT else {standing}
        if word is not None:
            used.add(("override", device.id))
            found = book.profiles.get(word.profile)
            if standing is _TRUSTED and (runs or found is None or not found.admits):
                continue  # an override takes the place of what trusted gets
        for operand in operands:
            used.update(_winners(operand, levels, book))
    return frozenset(used)


def _levels(device: Device, book: Book) -> list[list[tuple[_Named, Level]]]:
    """The rules that are for a device by level, most specific first."""
    rules = matched(device, book)
    return [
        [] if rules.own is None else [(("device", device.id), rules.own)],
        [(("class", rule.name), rule.level) for rule in rules.classes],
        [(("deployment", rule.name), rule.level) for rule in rules.deployments],
        [(("node default", ""), book.default)],
    ]


def _winners(standing: Standing, levels: Sequence[Sequence[tuple[_Named, Level]]], book: Book) -> Iterator[_Named]:
    """The rules that give a standing its profile: of the most specific level that names it the most restrictive."""
    for level in levels:
        said = [(name, rule.standings[standing]) for name, rule in level if standing in rule.standings]
        if said:
            least = min(book.rank(profile) for _, profile in said)
            yield from (name for name, profile in said if book.rank(profile) == least)
            return
    yield ("built-in", "")


# --- why a rule is for a device, or not -------------------------------------------------------------------------


def because(match: Match, device: Device) -> str:
    """What of a match holds for a device; where something does not, that alone."""
    parts = list(_parts(match, device))
    broken = [text for holds, text in parts if not holds]
    return "; ".join(broken or [text for _, text in parts])


def _parts(match: Match, device: Device) -> Iterator[tuple[bool, str]]:
    labels = dict(device.labels)
    for key, value in match.labels:
        if (key, value) in device.labels:
            yield True, f"label {key}={value}"
        elif key in labels:
            yield False, f"label {key} is {labels[key]}, not {value}"
        else:
            yield False, f"no label {key}, {value} is asked for"
    if match.id:
        holds = matches(Match(id=match.id), device)
        yield holds, f"id {'matches' if holds else 'does not match'} {match.id}"
    if match.prefixes:
        within = [prefix for prefix in match.prefixes if matches(Match(prefixes=(prefix,)), device)]
        if within:
            yield True, f"an address in {within[0]}"
        else:
            yield False, f"no address in {', '.join(map(str, match.prefixes))}"


def _says(level: Level) -> str:
    """A level's profiles and marks in words."""
    marks = []
    if level.max_age is not None:
        marks.append(f"max_age {level.max_age:g} s")
    if level.recovery_passes is not None:
        marks.append(f"recovery_passes {level.recovery_passes}")
    if level.quorum is not None:
        marks.append(f"quorum {level.quorum}")
    return ", ".join([says(level), *marks])
