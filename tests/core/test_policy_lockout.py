"""The lock-out guard: management, the corridor and our own links survive every book."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.policy import ADMITTED, Book, CorridorEntry, Link, Links, Service, check_lockout

OFFICE, VPN = ip_network("10.77.9.0/24"), ip_network("fd77:9::/64")
FEED = Service("feed", ip_address("10.77.3.2"), 8001)
VERIFIER = CorridorEntry("verifier", ip_address("10.77.2.2"), 8100)
DNS = CorridorEntry("dns", ip_address("10.77.2.53"), 53, "udp")
BOOK = Book((FEED,), (VERIFIER, DNS), (OFFICE, VPN), ADMITTED)
LINKS = Links(
    management=(OFFICE,),
    verifiers=(ip_network("10.77.2.2/32"),),
    ours=(
        Link("console", ip_address("127.0.0.1"), 8080),
        Link("door", ip_address("0.0.0.0"), 8000),
        Link("agent link", ip_address("10.77.3.1"), 8443),
        Link("time", None, 123, "udp"),
    ),
    host=frozenset({ip_address("10.77.3.1"), ip_address("fd77:3::1")}),
)


def found(new: Book, old: Book | None = BOOK, links: Links = LINKS) -> list[tuple[str, str]]:
    findings = check_lockout(old, new, links)
    assert all(finding.severity == "error" and finding.mend for finding in findings)
    return [(finding.subject, finding.what) for finding in findings]


def subjects(new: Book, old: Book | None = BOOK, links: Links = LINKS) -> list[str]:
    return [subject for subject, _ in found(new, old, links)]


def test_a_book_that_cuts_nobody_is_taken() -> None:
    assert found(BOOK) == []
    assert found(BOOK, None) == []
    assert found(replace(BOOK, corridor=(VERIFIER,), always_allowed=(OFFICE,))) == []


def test_management_stays_allowed() -> None:
    lost = replace(BOOK, always_allowed=(VPN,))
    ((subject, what),) = found(lost)
    assert subject == "always_allowed"
    assert what.startswith("management from 10.77.9.0/24 is not in it any more: ")
    assert " any more" not in found(lost, None)[0][1]
    assert " any more" not in found(lost, lost)[0][1]


@pytest.mark.parametrize(
    ("allowed", "covered"),
    [
        (["10.77.9.0/24"], True),
        (["10.77.0.0/16"], True),
        (["10.77.9.0/25", "10.77.9.128/25"], True),
        (["10.77.9.0/25"], False),
        (["10.77.9.0/25", "10.77.9.192/26"], False),
        (["fd77:9::/64"], False),
        ([], False),
    ],
)
def test_management_is_covered_as_a_whole(allowed: list[str], covered: bool) -> None:
    book = replace(BOOK, always_allowed=tuple(ip_network(text) for text in allowed))
    assert subjects(book) == ([] if covered else ["always_allowed"])


def test_the_way_to_the_verifier_stays() -> None:
    ((subject, what),) = found(replace(BOOK, corridor=(DNS,)))
    assert subject == "corridor"
    assert what.startswith("verifier is gone, the verifier's endpoint 10.77.2.2 port 8100/tcp: ")
    assert subjects(replace(BOOK, corridor=(replace(VERIFIER, port=8101), DNS))) == ["corridor"]
    assert subjects(replace(BOOK, corridor=(replace(VERIFIER, name="other"), DNS))) == []
    assert subjects(replace(BOOK, corridor=(DNS,)), links=replace(LINKS, verifiers=())) == []


def test_gating_the_verifier_is_refused_with_the_rule_that_does_it() -> None:
    gates = Service("attest", VERIFIER.address, VERIFIER.port)
    ((subject, what),) = found(replace(BOOK, services=(FEED, gates), corridor=(DNS,)))
    assert subject == "service attest"
    assert what.startswith("it gates the verifier's endpoint 10.77.2.2 port 8100/tcp")
    near = replace(gates, port=9)
    assert subjects(replace(BOOK, services=(FEED, near))) == []
    assert subjects(replace(BOOK, services=(FEED, near), corridor=(DNS,)), None) == ["service attest"]
    assert subjects(replace(BOOK, services=(FEED, near)), None) == []


@pytest.mark.parametrize(
    ("service", "link"),
    [
        (Service("s", ip_address("127.0.0.1"), 8080), "the console at 127.0.0.1 port 8080/tcp"),
        (Service("s", ip_address("127.0.0.2"), 8080), ""),
        (Service("s", ip_address("10.77.3.1"), 8080), ""),
        (Service("s", ip_address("10.77.3.1"), 8000), "the door at 0.0.0.0 port 8000/tcp"),
        (Service("s", ip_address("fd77:3::1"), 8000), "the door at 0.0.0.0 port 8000/tcp"),
        (Service("s", ip_address("127.0.0.1"), 8000), "the door at 0.0.0.0 port 8000/tcp"),
        (Service("s", ip_address("10.77.3.2"), 8000), ""),  # the app server's, not ours
        (Service("s", ip_address("10.77.3.1"), 8000, "udp"), ""),
        (Service("s", ip_address("10.77.3.1"), 8443), "the agent link at 10.77.3.1 port 8443/tcp"),
        (Service("s", ip_address("10.77.3.1"), 8444), ""),
        (Service("s", ip_address("10.77.3.1"), 123, "udp"), "the time at every address of this host port 123/udp"),
    ],
)
def test_our_own_endpoints_are_never_gated(service: Service, link: str) -> None:
    findings = found(replace(BOOK, services=(service,)))
    assert findings == ([("service s", f"it gates {link}: a cut would reach ourselves")] if link else [])


endpoints = st.builds(
    Service,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["10.77.2.2", "10.77.3.1", "127.0.0.1"]).map(ip_address),
    st.sampled_from([8000, 8100]),
)
corridors = st.lists(st.sampled_from([VERIFIER, DNS]), unique=True, max_size=2).map(tuple)
prefixes = st.lists(st.sampled_from([OFFICE, VPN]), unique=True, max_size=2).map(tuple)
books = st.builds(
    Book, services=st.lists(endpoints, max_size=2).map(tuple), corridor=corridors, always_allowed=prefixes
)


@settings(deadline=None)
@given(books, books)
def test_what_is_taken_cuts_nobody(old: Book, new: Book) -> None:
    if check_lockout(old, new, LINKS):
        return
    assert OFFICE in new.always_allowed
    assert VERIFIER not in old.corridor or VERIFIER in new.corridor
    for service in new.services:
        assert (service.port, str(service.address)) not in ((8000, "10.77.3.1"), (8000, "127.0.0.1"))
