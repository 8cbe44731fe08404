"""The zone between two books: whichever of the two put a device where it stands, it reaches no more than that."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.policy import Book, CorridorEntry, Profile, Rate, Service, Zone, meet, zone_of
from gateway.core.policy.zone import allows, place

HOSTS = [ip_address("10.77.3.2"), ip_address("10.77.3.3")]
PLACES = [(host, port) for host in HOSTS for port in (8001, 8002)]
EVERY = [Service(f"s{number}", *where) for number, where in enumerate(PLACES)]
PROFILES = ("probation", "vip", "admitted")
NETWORKS = [ip_network(text) for text in ("10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.9.0.0/16", "fd00::/16")]


@st.composite
def zones(draw: st.DrawFn) -> Zone:
    """A book's zone: a lower profile reaches no more, and nothing is gated and in the corridor at once."""
    gated = draw(st.lists(st.sampled_from(EVERY), unique=True))
    corridor = [
        CorridorEntry(f"c{number}", *where)
        for number, where in enumerate(PLACES)
        if where not in [(each.address, each.port) for each in gated] and draw(st.booleans())
    ]
    reaches: dict[str, tuple[Service, ...]] = {}
    below: tuple[Service, ...] = ()
    for name in PROFILES:
        if name == "admitted" or draw(st.booleans()):
            below = tuple(each for each in gated if each in below or draw(st.booleans()))
            reaches[name] = below
    numbers = st.builds(Rate, st.integers(1, 100), st.sampled_from([1.0, 60.0]))
    rates = {name: draw(numbers) for name in reaches if draw(st.booleans())}
    return Zone(tuple(gated), tuple(corridor), tuple(draw(st.sets(st.sampled_from(NETWORKS)))), reaches, rates)


def stricter(one: Rate | None, other: Rate | None) -> bool:
    """Whether ``one`` lets no more connections through than ``other``, in any time."""
    if other is None:
        return True
    return (
        one is not None
        and one.new_connections <= other.new_connections
        and one.new_connections / one.per <= other.new_connections / other.per
    )


@given(zones(), zones())
def test_a_device_of_either_book_reaches_no_more_than_its_book_lets_it(old: Zone, new: Zone) -> None:
    between = meet(old, new)
    for book in (old, new):
        for name in book.reaches:
            assert name in between.reaches
            for service in EVERY:
                if allows(between, name, service):
                    assert allows(book, name, service)
            assert stricter(between.rates.get(name), book.rates.get(name))


@given(zones(), zones())
def test_what_both_books_let_a_profile_reach_stays_reachable(old: Zone, new: Zone) -> None:
    between = meet(old, new)
    for name in old.reaches.keys() & new.reaches.keys():
        for service in EVERY:
            if allows(old, name, service) and allows(new, name, service):
                assert allows(between, name, service)


@given(zones(), zones())
def test_nothing_is_open_beside_the_profiles_that_is_not_in_both(old: Zone, new: Zone) -> None:
    between = meet(old, new)
    gated = {place(service) for service in between.services}
    assert gated == {place(service) for service in (*old.services, *new.services)}
    for entry in between.corridor:
        assert place(entry) not in gated
        service = Service("c", entry.address, entry.port)
        assert all(allows(book, "no such profile", service) for book in (old, new))
    for network in between.always_allowed:
        for book in (old, new):
            assert any(network.version == each.version and network.subnet_of(each) for each in book.always_allowed)  # type: ignore[arg-type]


@given(zones())
def test_between_a_book_and_itself_is_the_book(zone: Zone) -> None:
    between = meet(zone, zone)
    assert set(between.services) == set(zone.services)
    assert between.corridor == zone.corridor
    assert {name: set(reached) for name, reached in between.reaches.items()} == {
        name: set(reached) for name, reached in zone.reaches.items()
    }
    assert between.rates == zone.rates
    assert set(between.always_allowed) == set(zone.always_allowed)


def test_a_zone_is_what_the_book_says_and_has_only_profiles_that_admit() -> None:
    vip = Profile("vip", 120, "all", Rate(5, 1.0))
    corridor = (CorridorEntry("verifier", HOSTS[1], 5001),)
    profiles = {"vip": vip, "quarantine": Profile("quarantine", 10, ()), "lockdown": Profile("lockdown", site=True)}
    assert zone_of(Book((EVERY[0],), corridor, (NETWORKS[0],), profiles=profiles)) == Zone(
        services=(EVERY[0],),
        corridor=corridor,
        always_allowed=(NETWORKS[0],),
        reaches={"probation": (), "admitted": (EVERY[0],), "vip": (EVERY[0],)},
        rates={"vip": Rate(5, 1.0)},
    )


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("10.1.0.0/16", "10.1.0.0/16", ["10.1.0.0/16"]),
        ("10.1.0.0/16", "10.1.2.0/24", ["10.1.2.0/24"]),
        ("10.1.2.0/24", "10.9.0.0/16", []),
        ("fd00::/16", "fd00::/16", ["fd00::/16"]),
        ("fd00::/16", "fd00:1::/32", ["fd00:1::/32"]),
        ("fd00:1::/32", "fd01::/16", []),
        ("0.0.0.0/0", "::/0", []),
    ],
)
def test_of_two_prefixes_the_inner_one_is_allowed_by_both(one: str, other: str, both: list[str]) -> None:
    def zone(text: str) -> Zone:
        return zone_of(Book(always_allowed=(ip_network(text),)))

    for between in (meet(zone(one), zone(other)), meet(zone(other), zone(one))):
        assert [str(network) for network in between.always_allowed] == both


def test_what_is_gated_is_never_in_the_corridor_between() -> None:
    """Nor when both books say so, which their checks would have refused."""
    entry = CorridorEntry("open", EVERY[0].address, EVERY[0].port)
    both = zone_of(Book((EVERY[0],), (entry,)))
    assert meet(both, both).corridor == ()


def test_a_host_that_becomes_protected_stays_reachable_for_those_who_keep_it() -> None:
    feed = EVERY[0]
    before, after = zone_of(Book()), zone_of(Book((feed,)))
    between = meet(before, after)
    assert between.services == (feed,)
    assert between.reaches["admitted"] == (feed,)
    assert between.reaches["probation"] == ()


def test_a_profile_of_one_book_alone_is_what_that_book_says() -> None:
    vip = Profile("vip", 120, "all", Rate(5, 1.0))
    before = zone_of(Book((EVERY[0],), profiles={"admitted": Profile("admitted", 100, "all")}))
    after = zone_of(Book((EVERY[0],), profiles={"vip": vip}))
    for between in (meet(before, after), meet(after, before)):
        assert between.reaches["vip"] == (EVERY[0],)
        assert between.rates == {"vip": Rate(5, 1.0)}


def test_of_two_rates_the_slower_in_every_respect_holds() -> None:
    def zone(rate: Rate) -> Zone:
        return zone_of(Book(profiles={"vip": Profile("vip", 120, "all", rate)}))

    assert meet(zone(Rate(10, 1.0)), zone(Rate(100, 60.0))).rates == {"vip": Rate(10, 60.0)}
