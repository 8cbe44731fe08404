"""Explanations name exactly the rules used: the decision is the same without the others, and each could deny."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import DENY, Decision, Device, DeviceId, Standing
from gateway.core.policy import (
    ADMITTED,
    Book,
    DeviceClass,
    Level,
    Looked,
    Match,
    Override,
    because,
    decide,
    explain,
    matches,
)
from tests.core.test_policy_levels import (
    BOOK,
    CAM,
    CAMERA,
    CAMERAS,
    CCTV,
    END,
    NAMES,
    NORTH,
    NOW,
    RANK,
    REACHING_NOTHING,
    access,
    books,
    conflicts,
    deadlines,
    overrides,
    some_devices,
    some_matches,
    standings,
)

S = Standing
Conflict = tuple[DeviceId, Standing] | None


def made_word(who: Device, override: tuple[str, float] | None) -> Override | None:
    return None if override is None else Override(who.id, *override, "ann", "repair")


def told(
    who: Device, standing: Standing, deadline: float | None, book: Book, conflict: Conflict, word: Override | None
) -> tuple[tuple[Looked, ...], Decision]:
    arguments = (who, standing, deadline, book, conflict, word, NOW)
    return explain(*arguments), decide(*arguments)


def restricted(book: Book, who: Device, kept: AbstractSet[tuple[str, str]]) -> Book:
    """The book without the rules that are not kept; what cannot be left out denies."""
    if ("node default", "") not in kept:
        book = replace(book, node_default=DENY, suspect=DENY, others={})
    return replace(
        book,
        deployments=tuple(rule for rule in book.deployments if ("deployment", rule.name) in kept),
        classes=tuple(rule for rule in book.classes if ("class", rule.name) in kept),
        devices={name: own for name, own in book.devices.items() if name == who.id and ("device", name) in kept},
    )


def denying(level: Level) -> Level:
    return replace(level, standings=dict.fromkeys(level.standings, DENY))


def lowered(book: Book, line: Looked) -> Book:
    """The book with one of its rules giving deny to whatever it names."""
    if line.level == "node default":
        return replace(book, node_default=DENY, suspect=DENY, others=dict.fromkeys(book.others, DENY))
    if line.level == "device":
        own = book.own(DeviceId(line.name))
        assert own is not None
        return replace(book, devices={**book.devices, DeviceId(line.name): denying(own)})
    return replace(
        book,
        deployments=tuple(
            replace(rule, level=denying(rule.level))
            if (line.level, line.name) == ("deployment", rule.name)
            else rule
            for rule in book.deployments
        ),
        classes=tuple(
            replace(rule, level=denying(rule.level)) if (line.level, line.name) == ("class", rule.name) else rule
            for rule in book.classes
        ),
    )


def outcome(decision: Decision) -> tuple[Standing, str, float | None]:
    return decision.standing, decision.profile, decision.until


@settings(max_examples=120, deadline=None)
@given(books, some_devices, standings, deadlines, conflicts, overrides)
def test_without_the_rules_that_were_not_used_the_decision_is_the_same(
    book: Book,
    who: Device,
    standing: Standing,
    deadline: float | None,
    conflict: Conflict,
    override: tuple[str, float] | None,
) -> None:
    word = made_word(who, override)
    lines, decision = told(who, standing, deadline, book, conflict, word)
    used = {(line.level, line.name) for line in lines if line.used}
    kept_word = word if ("override", who.id) in used else None
    after = decide(who, standing, deadline, restricted(book, who, used), conflict, kept_word, NOW)
    assert outcome(after) == outcome(decision)
    for line in lines:
        if line.used or line.level in ("built-in", "override"):
            continue
        kept = {(other.level, other.name) for other in lines if other is not line}
        one_less = decide(who, standing, deadline, restricted(book, who, kept), conflict, word, NOW)
        assert outcome(one_less) == outcome(decision)


@settings(max_examples=120, deadline=None)
@given(books, some_devices, standings, deadlines, conflicts, overrides)
def test_each_rule_that_was_used_could_have_denied(
    book: Book,
    who: Device,
    standing: Standing,
    deadline: float | None,
    conflict: Conflict,
    override: tuple[str, float] | None,
) -> None:
    word = made_word(who, override)
    lines, decision = told(who, standing, deadline, book, conflict, word)
    assert any(line.used for line in lines)
    for line in lines:
        if not line.used:
            continue
        assert line.matched
        if line.level == "built-in":
            assert decision.profile == DENY
        elif line.level == "override":
            assert word is not None
            assert decide(who, standing, deadline, book, conflict, word._replace(profile=DENY), NOW).profile == DENY
        else:
            after = decide(who, standing, deadline, lowered(book, line), conflict, word, NOW)
            assert after.profile == DENY


@settings(max_examples=80, deadline=None)
@given(books, some_devices, standings, deadlines, conflicts, overrides)
def test_every_rule_is_told_once_and_the_chain_says_the_same(
    book: Book,
    who: Device,
    standing: Standing,
    deadline: float | None,
    conflict: Conflict,
    override: tuple[str, float] | None,
) -> None:
    word = made_word(who, override)
    lines, decision = told(who, standing, deadline, book, conflict, word)
    assert told(who, standing, deadline, book, conflict, word)[0] == lines
    rules = [("deployment", rule.name, rule.match) for rule in book.deployments]
    rules += [("class", rule.name, rule.match) for rule in book.classes]
    listed = [line for line in lines if line.level in ("deployment", "class")]
    assert [(line.level, line.name) for line in listed] == [(level, name) for level, name, _ in rules]
    for line, (_, _, match) in zip(listed, rules, strict=True):
        assert line.matched is matches(match, who)
        assert line.because
    heads = {line.partition(": ")[0] for line in decision.chain}
    for line in listed:
        assert line.matched is (f"{line.level} {line.name}" in heads)
    assert any(line.level == "device" for line in lines) is ("this device" in heads)
    running = any(head.startswith("operator override by ann") for head in heads)
    assert [line.matched for line in lines if line.level == "override"] == ([] if word is None else [running])


@settings(deadline=None)
@given(some_matches, some_devices)
def test_because_tells_what_broke_and_nothing_else(match: Match, who: Device) -> None:
    holds = matches(match, who)
    alone = [Match(labels=(label,)) for label in match.labels]
    alone += [Match(id=match.id)] if match.id else []
    alone += [Match(prefixes=match.prefixes)] if match.prefixes else []
    told_of = because(match, who).split("; ")
    assert len(told_of) == (len(alone) if holds else sum(not matches(part, who) for part in alone))
    assert told_of == [because(part, who) for part in alone if holds or not matches(part, who)]


# --- by example ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (Match(labels=(("kind", "camera"),)), "label kind=camera"),
        (Match(labels=(("kind", "door"), ("site", "north"))), "label kind is camera, not door"),
        (Match(labels=(("floor", "2"),)), "no label floor, 2 is asked for"),
        (Match(id="cam-*"), "id matches cam-*"),
        (Match(id="door-*"), "id does not match door-*"),
        (Match(prefixes=(ip_network("10.0.0.0/24"), ip_network("10.77.1.0/24"))), "an address in 10.77.1.0/24"),
        (
            Match(prefixes=(ip_network("10.0.0.0/24"), ip_network("fd77::/64"))),
            "no address in 10.0.0.0/24, fd77::/64",
        ),
        (Match((("kind", "camera"),), "cam-*"), "label kind=camera; id matches cam-*"),
    ],
)
def test_why_a_rule_is_for_a_device_or_not(match: Match, words: str) -> None:
    assert because(match, CAMERA) == words


def test_an_explanation_marks_the_rules_that_made_the_decision() -> None:
    marked = Level({S.TRUSTED: ADMITTED}, max_age=60.0, recovery_passes=3, quorum=1)
    other = DeviceClass("doors", Match((("kind", "door"),)), marked)
    book = replace(BOOK, deployments=(CCTV,), classes=(CAMERAS, NORTH, other))
    lines = explain(CAMERA, S.TRUSTED, END, book)
    assert [(line.level, line.name, line.matched, line.says, line.used) for line in lines] == [
        ("built-in", "", True, "deny", False),
        ("node default", "", True, "trusted admitted, suspect probation", False),
        ("deployment", "cctv", True, "probation", False),
        ("class", "cameras", True, "maintenance", False),
        ("class", "north", True, "trusted probation, suspect quarantine", True),
        ("class", "doors", False, "admitted, max_age 60 s, recovery_passes 3, quorum 1", False),
    ]
    word = Override(CAM, ADMITTED, NOW + 10, "ann", "repair")
    *rest, last = explain(CAMERA, S.TRUSTED, END, book, None, word, NOW)
    assert not any(line.used for line in rest)
    assert last == Looked("override", CAM, True, "in force, set by ann: repair", ADMITTED, True)
    *rest, last = explain(CAMERA, S.TRUSTED, END, book, None, word, NOW + 10)
    assert [line.name for line in rest if line.used] == ["north"]
    assert (last.matched, last.used, last.because) == (False, False, "over, set by ann: repair")


# --- overrides and conflicts, for all -----------------------------------------------------------------------------


words = st.tuples(st.sampled_from([*NAMES, "gone"]), st.sampled_from([END - 10, END + 50]))


@settings(deadline=None)
@given(books, some_devices, standings, deadlines, words, words)
def test_an_override_raises_nobody_but_the_trusted_and_a_lower_one_gives_no_more(
    book: Book,
    who: Device,
    standing: Standing,
    deadline: float | None,
    first: tuple[str, float],
    second: tuple[str, float],
) -> None:
    low, high = sorted((first, second), key=lambda word: RANK.get(word[0], 0))
    plain = decide(who, standing, deadline, book)
    lower, higher = (decide(who, standing, deadline, book, None, made_word(who, word), NOW) for word in (low, high))
    assert access(lower) <= access(higher)
    if standing is not S.TRUSTED or deadline is None:
        assert access(higher) <= access(plain)
    else:
        assert access(higher) == (0 if high[0] in (*REACHING_NOTHING, "gone") else RANK[high[0]])
    for word, decision in ((low, lower), (high, higher)):
        assert decision.until is None or (deadline is not None and decision.until <= min(deadline, word[1]))


@settings(deadline=None)
@given(books, some_devices, standings, standings, deadlines, overrides)
def test_a_shared_address_never_gives_more_than_any_of_the_standings(
    book: Book,
    who: Device,
    standing: Standing,
    theirs: Standing,
    deadline: float | None,
    override: tuple[str, float] | None,
) -> None:
    word = made_word(who, override)
    shared = decide(who, standing, deadline, book, (DeviceId("other"), theirs), word, NOW)
    alone = [decide(who, each, deadline, book, None, word, NOW) for each in (standing, theirs)]
    assert access(shared) == min(access(each) for each in alone)
    assert shared.standing is min(standing, theirs)
    assert shared.chain[-1].startswith("address shared with other")
