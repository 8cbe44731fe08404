"""What is a way around the gate, and what is not."""

from __future__ import annotations

import pytest

from gateway.watch.bypass.judge import MOST_NAMED, Interface, Route, Seen, behind, judge

DEVICES, SERVERS = Interface(2, "radio0"), Interface(3, "app0")


def seen(
    *,
    devices: dict[str, Route | None] | None = None,
    services: dict[str, Route | None] | None = None,
    interfaces: tuple[Interface, ...] = (DEVICES, SERVERS),
    flowtables: tuple[str, ...] = (),
) -> Seen:
    return Seen(
        {each.number: each for each in interfaces},
        behind(({"10.1.0.7": Route(2, local=False)} if devices is None else devices).items()),
        {"10.2.0.1": Route(3, local=False)} if services is None else services,
        flowtables,
    )


@pytest.mark.parametrize(
    "sound",
    [
        seen(),
        seen(services={"10.2.0.1": Route(1, local=True)}),
        seen(services={"10.2.0.1": None}),
        seen(devices={"10.1.0.7": None, "127.0.0.7": Route(3, local=True)}),
        seen(devices={}),
        seen(interfaces=(DEVICES, SERVERS, Interface(9, "other", xdp=True, filters=True))),
    ],
)
def test_a_router_between_two_links_has_no_way_around_it(sound: Seen) -> None:
    assert judge(sound) == ()


def test_a_link_in_common_is_named_with_its_devices() -> None:
    devices: dict[str, Route | None] = {f"10.2.0.{n}": Route(3, local=False) for n in range(10, 16)}
    (found,) = judge(seen(devices=devices))
    assert "10.2.0.10, 10.2.0.11, 10.2.0.12 and 3 more" in found.what
    assert "the service at 10.2.0.1 share the link of app0" in found.what
    assert len(devices) == MOST_NAMED + 3
    assert "only router" in found.mend


def test_a_bridge_is_called_one() -> None:
    bridge = Interface(3, "br0", "bridge")
    (found,) = judge(seen(devices={"10.2.0.9": Route(3, local=False)}, interfaces=(bridge,)))
    assert "the bridge br0" in found.what


def test_an_interface_that_vanished_meanwhile_is_still_told() -> None:
    (found,) = judge(seen(devices={"10.2.0.9": Route(3, local=False)}, interfaces=()))
    assert "interface 3" in found.what


@pytest.mark.parametrize(("flag", "word"), [("xdp", "XDP"), ("filters", "traffic control")])
@pytest.mark.parametrize("which", [DEVICES, SERVERS])
def test_what_sees_packets_before_the_gate_is_told(flag: str, word: str, which: Interface) -> None:
    changed = Interface(which.number, which.name, xdp=flag == "xdp", filters=flag == "filters")
    others = tuple(each for each in (DEVICES, SERVERS) if each is not which)
    (found,) = judge(seen(interfaces=(changed, *others)))
    assert word in found.what
    assert which.name in found.what


def test_every_flowtable_is_told() -> None:
    found = judge(seen(flowtables=("filter/fast", "inet/other")))
    assert ["filter/fast" in found[0].what, "inet/other" in found[1].what] == [True, True]
