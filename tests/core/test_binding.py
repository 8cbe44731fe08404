"""The address book: anchored before unanchored, a /64 covers its addresses, sharers bear on one another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.binding import AddressBook
from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId, SourceName

UP, NONE = AnchorKind.UPSTREAM, AnchorKind.NONE
V4, OTHER = "10.0.0.1", "10.0.0.2"
NET, INSIDE, OUTSIDE = "fd00:1:1:1::/64", "fd00:1:1:1::7", "fd00:1:1:2::7"


def device(name: str, addresses: Sequence[str], anchor: AnchorKind = UP) -> Device:
    binding = Binding(DeviceId(name), tuple(Address.parse(text) for text in addresses), anchor)
    return Device(DeviceId(name), SourceName("v"), binding)


def owners(book: AddressBook, text: str) -> tuple[str, ...]:
    return book.owners(Address.parse(text))


def test_the_normal_case() -> None:
    book = AddressBook([device("a", [V4, INSIDE]), device("b", [OTHER], NONE)])
    assert owners(book, V4) == owners(book, INSIDE) == ("a",)
    assert owners(book, OTHER) == ("b",)
    assert owners(book, "10.0.0.9") == owners(book, OUTSIDE) == ()
    assert book.sharers(DeviceId("a")) == book.sharers(DeviceId("b")) == book.sharers(DeviceId("?")) == frozenset()
    assert book.findings() == ()
    assert book.conflicts() == {}


def test_a_device_may_list_an_address_twice() -> None:
    book = AddressBook([device("a", [V4, V4])])
    assert owners(book, V4) == ("a",)
    assert book.findings() == ()


def test_a_net_covers_addresses_that_no_device_lists() -> None:
    book = AddressBook([device("a", [NET])])
    assert owners(book, NET) == owners(book, INSIDE) == ("a",)
    assert owners(book, OUTSIDE) == ()


def test_several_anchored_owners_are_a_conflict() -> None:
    book = AddressBook([device("a", [V4]), device("b", [V4]), device("c", [V4], NONE)])
    assert owners(book, V4) == ("a", "b")
    assert book.conflicts() == {Address.parse(V4): ("a", "b")}
    assert book.sharers(DeviceId("a")) == {"b"}
    assert book.sharers(DeviceId("b")) == {"a"}
    assert book.sharers(DeviceId("c")) == {"a", "b"}
    assert book.affected(DeviceId("a")) == {"b", "c"}
    assert book.affected(DeviceId("c")) == frozenset()
    assert any("conflict" in finding for finding in book.findings())
    assert any("c does not count" in finding for finding in book.findings())


def test_an_anchored_owner_displaces_unanchored_ones() -> None:
    book = AddressBook([device("a", [V4], NONE), device("b", [V4])])
    assert owners(book, V4) == ("b",)
    assert book.sharers(DeviceId("b")) == frozenset()
    assert book.sharers(DeviceId("a")) == {"b"}
    assert book.affected(DeviceId("b")) == {"a"}
    assert book.conflicts() == {}


def test_unanchored_owners_share_and_are_shown() -> None:
    book = AddressBook([device("a", [V4], NONE), device("b", [V4, OTHER], NONE)])
    assert owners(book, V4) == ("a", "b")
    assert owners(book, OTHER) == ("b",)
    assert book.sharers(DeviceId("a")) == {"b"}
    assert book.conflicts() == {}
    assert len(book.findings()) == 1


@pytest.mark.parametrize(
    ("net", "single", "of_net", "of_single", "conflict"),
    [
        (UP, UP, ("a", "b"), ("b", "a"), True),
        (NONE, NONE, ("a", "b"), ("b", "a"), False),
        (UP, NONE, ("a",), ("a",), False),  # the anchored /64 displaces what lies in it
        (NONE, UP, ("a", "b"), ("b",), False),  # an anchor inside says nothing about the rest of the /64
    ],
)
def test_an_address_inside_the_net_of_another(
    net: AnchorKind, single: AnchorKind, of_net: tuple[str, ...], of_single: tuple[str, ...], *, conflict: bool
) -> None:
    book = AddressBook([device("a", [NET], net), device("b", [INSIDE, OUTSIDE], single)])
    assert owners(book, NET) == of_net
    assert owners(book, INSIDE) == of_single
    assert owners(book, OUTSIDE) == ("b",)
    assert bool(book.conflicts()) is conflict
    assert book.findings()


inventories = st.lists(
    st.tuples(
        st.lists(st.sampled_from([V4, OTHER, NET, INSIDE, OUTSIDE, "fd00:1:1:2::/64"]), max_size=3),
        st.sampled_from(AnchorKind),
    ),
    max_size=6,
).map(lambda rows: [device(f"d{i}", addresses, anchor) for i, (addresses, anchor) in enumerate(rows)])


@given(inventories)
def test_the_rule_holds_in_any_inventory(devices: list[Device]) -> None:
    book = AddressBook(devices)
    by_id = {each.id: each for each in devices}
    for each in devices:
        bearing = {owner for address in each.binding.addresses for owner in book.owners(address)}
        assert book.sharers(each.id) == bearing - {each.id}
        assert book.affected(each.id) == {other for other in by_id if each.id in book.sharers(other)}
        for address in each.binding.addresses:
            judged = book.owners(address)
            assert judged
            assert len(set(judged)) == len(judged)
            covering = [
                other
                for other in devices
                if any(
                    mine.prefix <= address.prefix and mine.covers(address.packed)
                    for mine in other.binding.addresses
                )
            ]
            anchored = {other.id for other in covering if other.binding.anchor is not NONE}
            assert {name for name in judged if by_id[name] in covering} == (anchored or {o.id for o in covering})
    for address, several in book.conflicts().items():
        assert len(several) > 1
        assert set(several) <= set(book.owners(address))
        assert all(by_id[name].binding.anchor is not NONE for name in several)
