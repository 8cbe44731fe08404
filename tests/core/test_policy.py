"""The decision: total, monotone, explained; and the checks of a book."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import DENY, Address, Binding, Decision, Device, DeviceId, SourceName, Standing
from gateway.core.policy import (
    ADMITTED,
    PROBATION,
    PROFILES,
    Book,
    CorridorEntry,
    ProfileName,
    Service,
    check,
    check_against,
    decide,
    rank,
    tighter,
)

S = Standing
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")
FEED = Service("feed", ip_address("10.77.3.2"), 8001)
VERIFIER = CorridorEntry("verifier", ip_address("10.77.2.2"), 8100)
BOOK = Book((FEED,), (VERIFIER,), (ip_network("10.77.9.0/24"),), ADMITTED, PROBATION)
END = 1_795_284_300.0


def device(name: str = "cam-1", *addresses: str) -> Device:
    binding = Binding(DeviceId(name), tuple(Address.parse(text) for text in addresses))
    return Device(DeviceId(name), SourceName("verifier"), binding)


def with_own(own: ProfileName | None, book: Book = BOOK) -> Book:
    return book if own is None else replace(book, devices={CAM: own})


@pytest.mark.parametrize(
    ("own", "standing", "deadline", "profile"),
    [
        (None, S.TRUSTED, END, ADMITTED),
        (None, S.SUSPECT, END, PROBATION),
        (None, S.TRUSTED, None, DENY),
        (None, S.SUSPECT, None, DENY),
        (None, S.UNKNOWN, None, DENY),
        (None, S.LAPSED, END, DENY),
        (PROBATION, S.TRUSTED, END, PROBATION),
        (PROBATION, S.SUSPECT, END, PROBATION),
        ("deny", S.TRUSTED, END, DENY),
        ("deny", S.SUSPECT, END, DENY),
    ],
)
def test_standing_and_device_give_the_profile(
    own: ProfileName | None, standing: Standing, deadline: float | None, profile: str
) -> None:
    decision = decide(device(), standing, deadline, with_own(own))
    assert (decision.device, decision.standing, decision.profile) == (CAM, standing, profile)
    assert decision.until == (None if profile == DENY else END)


def test_the_chain_names_every_rule_from_the_least_specific_on() -> None:
    assert decide(device(), S.TRUSTED, END, BOOK).chain == (
        "built-in: deny",
        "node default: admitted",
        "standing trusted: admitted until the deadline",
    )
    assert decide(device(), S.SUSPECT, END, with_own("deny"), (OTHER, S.HELD)).chain == (
        "built-in: deny",
        "node default: admitted",
        "this device: deny",
        "standing suspect: at most probation until the deadline",
        "address shared with cam-2 (held): judged as held, deny",
    )


def test_a_conflict_lowers_the_effective_standing() -> None:
    held = decide(device(), S.TRUSTED, END, BOOK, (OTHER, S.HELD))
    assert (held.standing, held.profile, held.until) == (S.HELD, DENY, None)
    suspect = decide(device(), S.TRUSTED, END, BOOK, (OTHER, S.SUSPECT))
    assert (suspect.standing, suspect.profile, suspect.until) == (S.SUSPECT, PROBATION, END)
    lapsed = decide(device(), S.SUSPECT, END, BOOK, (OTHER, S.LAPSED))
    assert (lapsed.standing, lapsed.profile) == (S.SUSPECT, DENY)


def access(decision: Decision) -> int:
    return 0 if decision.until is None else rank(decision.profile)


books = st.builds(
    Book,
    node_default=st.sampled_from(PROFILES),
    suspect=st.sampled_from(["deny", PROBATION]),
    devices=st.dictionaries(st.sampled_from([CAM, OTHER]), st.sampled_from(PROFILES)),
)
standings = st.sampled_from(Standing)
deadlines = st.none() | st.floats(1.0, 1e10)
conflicts = st.none() | st.tuples(st.just(OTHER), standings)


@settings(deadline=None)
@given(books, standings, deadlines, conflicts)
def test_the_decision_is_total_and_gives_no_end_without_access(
    book: Book, standing: Standing, deadline: float | None, conflict: tuple[DeviceId, Standing] | None
) -> None:
    decision = decide(device(), standing, deadline, book, conflict)
    assert (decision.until is None) == (decision.profile == DENY)
    assert decision.until in (None, deadline)
    assert decision.chain[0] == "built-in: deny"
    assert decision.standing is min(standing, standing if conflict is None else conflict[1])
    own = book.own(CAM)
    assert access(decision) <= rank(book.node_default if own is None else own.standings[S.TRUSTED])
    if standing not in (S.TRUSTED, S.SUSPECT) or deadline is None:
        assert decision.profile == DENY


@settings(deadline=None)
@given(books, deadlines, conflicts)
def test_a_lower_standing_never_reaches_more(
    book: Book, deadline: float | None, conflict: tuple[DeviceId, Standing] | None
) -> None:
    by_standing = {each: access(decide(device(), each, deadline, book, conflict)) for each in Standing}
    rest = [by_standing[each] for each in Standing if each not in (S.TRUSTED, S.SUSPECT)]
    assert by_standing[S.TRUSTED] >= by_standing[S.SUSPECT] >= max(rest) == 0
    for each in Standing:
        assert access(decide(device(), each, deadline, book, conflict)) <= access(
            decide(device(), each, deadline, book)
        )


def test_tighter_compares_profile_then_end() -> None:
    def made(profile: str, until: float | None) -> Decision:
        return Decision(CAM, S.TRUSTED, profile, until, ())

    assert tighter(made(DENY, None), made(PROBATION, END))
    assert tighter(made(PROBATION, END + 100), made(ADMITTED, END))
    assert tighter(made(ADMITTED, END - 1), made(ADMITTED, END))
    assert not tighter(made(ADMITTED, END), made(ADMITTED, END))
    assert not tighter(made(ADMITTED, END), made(DENY, None))
    assert not tighter(made(DENY, None), made(DENY, None))


def test_reach_follows_the_profiles_and_is_monotone() -> None:
    status = Service("status", ip_address("10.77.3.2"), 8051, profiles=(PROBATION, ADMITTED))
    odd = Service("odd", ip_address("10.77.3.2"), 8052, profiles=(PROBATION,))
    book = replace(BOOK, services=(FEED, status, odd))
    assert book.reach("deny") == ()
    assert book.reach(PROBATION) == (status,)
    assert book.reach(ADMITTED) == (FEED, status)


@pytest.mark.parametrize("own", [None, *PROFILES])
def test_rulings_follow_the_book_they_belong_to(own: ProfileName | None) -> None:
    for default, suspect in product(PROFILES, ("deny", "probation")):
        book = with_own(own, Book(node_default=default, suspect=suspect))
        assert decide(device(), S.TRUSTED, END, book).profile == (default if own is None else own)


def test_the_default_book_admits_nobody() -> None:
    assert decide(device(), S.TRUSTED, END, Book()).profile == DENY


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Book(node_default="admited"),
        lambda: Book(suspect="admitted"),
        lambda: Book(devices={CAM: "x"}),
        lambda: replace(FEED, port=0),
        lambda: replace(FEED, name=""),
        lambda: replace(FEED, protocol="sctp"),  # type: ignore[arg-type]
        lambda: replace(FEED, path="direct"),  # type: ignore[arg-type]
        lambda: replace(FEED, profiles=()),
        lambda: replace(FEED, profiles=("deny",)),
        lambda: replace(VERIFIER, port=65_536),
    ],
)
def test_values_that_are_none_cannot_be_made(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"must be|needed"):
        wrong()


def found(book: Book, *devices: Device) -> list[tuple[str, str]]:
    findings = check_against(book, devices) if devices else check(book)
    assert all(finding.what and finding.mend for finding in findings)
    return [(finding.severity, finding.subject) for finding in findings]


def test_a_good_book_has_no_findings() -> None:
    assert found(BOOK) == []
    assert found(BOOK, device("cam-1", "10.77.1.11", "fd77:1::11")) == []


@pytest.mark.parametrize(
    ("book", "expected"),
    [
        (replace(BOOK, services=(FEED, replace(FEED, port=1))), [("error", "service feed")]),
        (replace(BOOK, services=(FEED, replace(FEED, name="again"))), [("error", "service again")]),
        (replace(BOOK, services=(replace(FEED, profiles=(PROBATION,)),)), [("error", "service feed")]),
        (replace(BOOK, corridor=(VERIFIER, VERIFIER)), [("error", "corridor entry verifier")]),
        (
            replace(BOOK, corridor=(CorridorEntry("side door", FEED.address, FEED.port),)),
            [("error", "corridor entry side door")],
        ),
        (replace(BOOK, corridor=(CorridorEntry("dns", FEED.address, FEED.port, "udp"),)), []),
        (replace(BOOK, always_allowed=(ip_network("::/0"),)), [("error", "always_allowed ::/0")]),
        (replace(BOOK, services=()), [("warning", "services")]),
        (replace(BOOK, node_default="deny"), [("warning", "node_default")]),
        (replace(BOOK, node_default="deny", devices={CAM: ADMITTED}), []),
    ],
)
def test_a_book_is_checked_by_itself(book: Book, expected: list[tuple[str, str]]) -> None:
    assert found(book) == expected


@pytest.mark.parametrize(
    ("book", "address", "expected"),
    [
        (BOOK, "10.77.9.7", [("error", "device cam-1")]),  # never gated
        (BOOK, "10.77.3.2", [("error", "device cam-1")]),  # the service's own address
        (BOOK, "10.77.2.2", [("error", "device cam-1")]),  # the corridor's own address
        (BOOK, "10.77.10.7", []),
        (replace(BOOK, always_allowed=(ip_network("fd77::/32"),)), "fd77:0:5:1::/64", [("error", "device cam-1")]),
        (replace(BOOK, always_allowed=(ip_network("fd77::5/128"),)), "fd77::/64", [("error", "device cam-1")]),
        (replace(BOOK, always_allowed=(ip_network("fd77::5/128"),)), "fd78::/64", []),
        (
            replace(BOOK, services=(replace(FEED, address=ip_address("fd77::2")),)),
            "fd77::/64",
            [("error", "device cam-1")],
        ),
        (replace(BOOK, devices={DeviceId("cam-l"): "deny"}), "10.77.1.11", [("error", "device cam-l")]),
    ],
)
def test_a_book_is_checked_against_the_inventory(book: Book, address: str, expected: list[tuple[str, str]]) -> None:
    assert found(book, device("cam-1", address)) == expected
