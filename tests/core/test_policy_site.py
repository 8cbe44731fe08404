"""The site's profile: conditions over counts of standings, first match from the top."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import Standing
from gateway.core.policy import (
    OPERATORS,
    Book,
    Condition,
    DeviceClass,
    Match,
    Operator,
    Profile,
    SiteDecision,
    SiteProfile,
    check,
    decide_site,
)

S = Standing
CLASS = DeviceClass("cameras", Match((("class", "camera"),)))
BOOK = Book(
    classes=(CLASS,),
    site=(
        SiteProfile("lockdown", (Condition(S.DISTRUSTED, ">=", 3),)),
        SiteProfile("elevated", (Condition(S.DISTRUSTED, ">=", 1), Condition(S.TRUSTED, "<", 50, share=True))),
        SiteProfile("blind", (Condition(S.TRUSTED, "==", 0, device_class="cameras"),)),
        SiteProfile("normal"),
    ),
)


@pytest.mark.parametrize(
    ("counts", "cameras", "name"),
    [
        ({"trusted": 10}, {"trusted": 1}, "normal"),
        ({"trusted": 10, "distrusted": 2}, {"trusted": 1}, "normal"),
        ({"trusted": 10, "distrusted": 3}, {"trusted": 1}, "lockdown"),
        ({"trusted": 1, "distrusted": 1}, {"trusted": 1}, "normal"),
        ({"trusted": 1, "distrusted": 2}, {"trusted": 1}, "elevated"),
        ({"trusted": 1, "lapsed": 2}, {"trusted": 1}, "normal"),
        ({"trusted": 10}, {"lapsed": 1}, "blind"),
        ({}, {}, "blind"),
    ],
)
def test_the_first_that_holds(counts: Mapping[str, int], cameras: Mapping[str, int], name: str) -> None:
    decision = decide_site(counts, sum(counts.values()), {"cameras": cameras}, BOOK)
    assert decision.name == name
    assert decision.chain[-1].startswith(f"site {name}: ")
    assert len(decision.chain) == [rule.name for rule in BOOK.site].index(name) + 1


def test_the_chain_says_what_was_counted() -> None:
    assert decide_site({"trusted": 3, "distrusted": 1}, 4, {"cameras": {"trusted": 2}}, BOOK).chain == (
        "site lockdown: distrusted >= 3 does not hold (1)",
        "site elevated: trusted < 50% does not hold (3 of 4)",
        "site blind: trusted of class cameras == 0 does not hold (2)",
        "site normal: no condition",
    )
    assert decide_site({"distrusted": 5}, 5, {}, BOOK).chain == ("site lockdown: distrusted >= 3",)


def test_without_a_rule_the_site_is_normal() -> None:
    assert decide_site({"distrusted": 9}, 9, {}, Book()) == ("normal", ("built-in: normal",))


@settings(deadline=None)
@given(st.sampled_from(OPERATORS), st.integers(0, 20), st.integers(0, 20), st.integers(0, 100), st.booleans())
def test_conditions_compare(sign: Operator, number: int, others: int, value: int, share: bool) -> None:
    total = number + others
    condition = Condition(S.HELD, sign, value, share)
    book = Book(site=(SiteProfile("elevated", (condition,)),))
    left, right = (number * 100, value * total) if share else (number, value)
    holds = {
        "<": left < right,
        "<=": left <= right,
        "==": left == right,
        "!=": left != right,
        ">=": left >= right,
        ">": left > right,
    }[sign] and not (share and total == 0)
    assert decide_site({"held": number, "trusted": others}, total, {}, book).name == (
        "elevated" if holds else "normal"
    )


LOCKDOWN = Profile("lockdown", site=True)


@pytest.mark.parametrize(
    ("book", "wanted"),
    [
        (BOOK, []),
        (Book(site=(SiteProfile("admitted"),)), ["site admitted"]),
        (Book(site=(SiteProfile("lockdwn"),), profiles={"lockdown": LOCKDOWN}), ["site lockdwn"]),
        (Book(site=(SiteProfile("lockdown"),), profiles={"lockdown": LOCKDOWN}), []),
        (Book(site=(SiteProfile("normal"), SiteProfile("lockdown"))), ["site lockdown"]),
        (Book(site=BOOK.site), ["site blind"]),
        (Book(site=(BOOK.site[0], BOOK.site[0])), ["site lockdown"]),
    ],
)
def test_site_rules_are_checked(book: Book, wanted: list[str]) -> None:
    assert [finding.subject for finding in check(book) if finding.severity == "error"] == wanted


# --- for all books ----------------------------------------------------------------------------------------------

conditions = st.builds(
    Condition,
    st.sampled_from(Standing),
    st.sampled_from(OPERATORS),
    st.integers(0, 6).map(float),
    st.booleans(),
    st.sampled_from(["", "cameras", "nobody"]),
)
site_rules = st.lists(
    st.tuples(st.sampled_from(["lockdown", "elevated", "normal"]), st.lists(conditions, max_size=3)), max_size=4
).map(lambda found: tuple(SiteProfile(name, tuple(when)) for name, when in found))
all_counts = st.dictionaries(st.sampled_from([each.label for each in Standing]), st.integers(0, 6))


@settings(deadline=None)
@given(site_rules, all_counts, all_counts)
def test_the_site_is_total_and_its_chain_names_exactly_the_rules_looked_at(
    rules: tuple[SiteProfile, ...], counts: dict[str, int], cameras: dict[str, int]
) -> None:
    def decided(some: tuple[SiteProfile, ...]) -> SiteDecision:
        return decide_site(counts, sum(counts.values()), {"cameras": cameras}, Book(site=some))

    decision = decided(rules)
    assert decision == decided(rules)
    looked = [line for line in decision.chain if line.startswith("site ")]
    heads = [line.partition(":")[0] for line in looked]
    assert heads == [f"site {rule.name}" for rule in rules[: len(looked)]]
    by_rule = decision.chain[-1] != "built-in: normal"
    assert decision.name == (rules[len(looked) - 1].name if by_rule else "normal")
    assert by_rule or len(looked) == len(rules)
    assert decided(rules[: len(looked)]) == decision, "what stands below the first that holds is not asked"
    for number in range(len(looked) - by_rule):
        others = (*rules[:number], *rules[number + 1 :])
        assert decided(others).name == decision.name, "a rule that does not hold decides nothing"
    if by_rule:
        assert decided(rules[len(looked) - 1 :]).name == decision.name


@settings(deadline=None)
@given(site_rules, all_counts, st.permutations(range(3)))
def test_the_order_of_conditions_does_not_matter(
    rules: tuple[SiteProfile, ...], counts: dict[str, int], order: list[int]
) -> None:
    turned = tuple(
        SiteProfile(rule.name, tuple(rule.when[n] for n in order if n < len(rule.when))) for rule in rules
    )
    one, other = (decide_site(counts, sum(counts.values()), {}, Book(site=each)) for each in (rules, turned))
    assert one.name == other.name
