"""The static baseline as text: what it declares, what it refuses, that nft takes it."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BackendError, ConfigError
from gateway.core.model import Address
from gateway.enforce.nft.libnftables import MAX_ERROR_TEXT, run_commands
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.ruleset import (
    Baseline,
    Endpoint,
    GatedService,
    device_sets,
    fingerprint,
    render_baseline_file,
    render_fresh,
    render_static,
    render_uninstall,
    static_sets,
)
from gateway.enforce.nft.standing import Layer
from tests.netns import in_namespaces, run

FEED = Endpoint(Address.parse("10.77.3.2"), 8001, "tcp")
FEED6 = Endpoint(Address.parse("fd77:3::2"), 8001, "udp")
VERIFIER = Endpoint(Address.parse("10.77.2.2"), 8100, "tcp")
ADMITTED = frozenset({"admitted"})


def baseline(**changes: Any) -> Baseline:
    parts: dict[str, Any] = {
        "services": (GatedService(FEED, ADMITTED), GatedService(FEED6, frozenset({"admitted", "probation"}))),
        "corridor": (VERIFIER,),
        "always_allowed": (ipaddress.ip_network("10.77.9.0/24"), ipaddress.ip_network("fd77:9::/48")),
        "inventory_size": 100,
    }
    return Baseline(**{**parts, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profiles": ("probation",)}, "admitted"),
        ({"profiles": ("admitted", "admitted")}, "once"),
        ({"profiles": ("admitted", "deny")}, "deny"),
        ({"profiles": ("admitted", "cut")}, "cut"),
        ({"profiles": ("admitted", "x; flush ruleset")}, "cannot name a set"),
        ({"services": (GatedService(FEED, frozenset({"elsewhere"})),)}, "elsewhere"),
        ({"services": (GatedService(FEED._replace(port=0), ADMITTED),)}, "port"),
        ({"services": (GatedService(FEED._replace(port=65_536), ADMITTED),)}, "port"),
        ({"services": (GatedService(FEED._replace(protocol="icmp"), ADMITTED),)}, "tcp, udp, sctp"),
        ({"services": (GatedService(FEED._replace(address=Address.parse("fd77:1::/64")), ADMITTED),)}, "single"),
        ({"corridor": (FEED,)}, "corridor"),
        ({"inventory_size": -1}, "inventory"),
    ],
)
def test_what_cannot_be_a_baseline_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        baseline(**changes)


@given(st.integers(0, 2_000_000))
def test_device_sets_have_room_for_twice_the_inventory(size: int) -> None:
    made = baseline(inventory_size=size)
    assert made.set_size >= made.smallest_set_size == 2 * size + 1_024
    assert made.set_size < 2 * made.smallest_set_size


def test_the_fingerprint_follows_the_static_part_only() -> None:
    one = fingerprint(baseline())
    assert fingerprint(baseline(inventory_size=50_000)) == one
    reordered = baseline(services=tuple(reversed(baseline().services)))
    assert fingerprint(reordered) == one
    different = [
        baseline(corridor=()),
        baseline(always_allowed=()),
        baseline(services=(GatedService(FEED, ADMITTED),)),
        baseline(profiles=("admitted", "probation", "update")),
    ]
    assert len({one, *map(fingerprint, different)}) == 1 + len(different)


def test_a_known_device_is_never_taken_for_an_always_allowed_client() -> None:
    text = render_static(baseline())
    for chain, end in (("toward4", "saddr"), ("back4", "daddr")):
        rules = text.partition(f"chain {chain} {{")[2].partition("}\n\tchain")[0]
        assert rules.index(f"ip {end} @known4 goto refuse") < rules.index(f"ip {end} @always4 accept")


def test_overlapping_networks_are_merged() -> None:
    networks = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/25", "10.0.0.128/25", "10.0.0.7/32"))
    assert static_sets(baseline(always_allowed=networks))["always4"].elements == ("10.0.0.0/24",)


@pytest.mark.netns
@pytest.mark.parametrize("made", [baseline(), Baseline(())], ids=["full", "empty"])
def test_nft_takes_every_text_and_repeating_changes_nothing(made: Baseline) -> None:
    def body() -> None:
        run("nft", "-f", "-", stdin=render_baseline_file(made, [Address.parse("10.77.1.11")]))
        first = run("nft", "-s", "list", "ruleset")
        run("nft", "-f", "-", stdin=render_baseline_file(made))
        assert run("nft", "-s", "list", "ruleset") == first
        assert fingerprint(made) in first
        run_commands(render_fresh(made))
        names = {
            one["set"]["name"] for one in json.loads(run("nft", "-j", "list", "sets"))["nftables"] if "set" in one
        }
        assert names == {"baseline", *device_sets(made.profiles), *static_sets(made)}
        for _ in range(2):
            run_commands(render_uninstall())
        assert run("nft", "list", "ruleset") == ""

    in_namespaces(body)


@pytest.mark.netns
def test_what_the_kernel_keeps_of_static_sets_is_what_we_expect() -> None:
    lists = [
        (),
        ("0.0.0.0/0", "::/0"),
        ("10.0.1.0/24", "10.0.2.0/24", "10.0.4.7/32", "fd77:1::/64", "fd77:1:0:1::/64", "fd77:1:0:2::9/128"),
        ("0.0.0.0/8", "255.255.255.255/32", "::/16", "ffff::/16"),
    ]

    def body() -> None:
        netlink = NetlinkSocket()
        for texts in lists:
            made = baseline(always_allowed=tuple(ipaddress.ip_network(text) for text in texts))
            layer = Layer(netlink, made, [])
            layer.lay()
            assert layer.lost_or_strange() == ""
            run("nft", "add element inet ragate always4 { 192.0.2.1 }" if len(texts) != 2 else "flush ruleset")
            assert layer.lost_or_strange().startswith(("always", "gated"))
        netlink.close()

    in_namespaces(body)


@pytest.mark.netns
def test_what_nft_refuses_is_told_in_its_own_words_and_changes_nothing() -> None:
    def body() -> None:
        run_commands(render_fresh(baseline()))
        before = run("nft", "list", "ruleset")
        with pytest.raises(BackendError) as caught:
            run_commands("flush table inet ragate\nadd rule inet ragate nowhere accept\n" + "#" * 5_000)
        assert "No such file or directory" in caught.value.what
        assert len(caught.value.what) <= MAX_ERROR_TEXT
        assert run("nft", "list", "ruleset") == before

    in_namespaces(body)


@pytest.mark.netns
def test_the_nft_program_stands_in_for_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.enforce.nft.libnftables.LIBRARY", "libnothing.so.0")
    monkeypatch.setattr("gateway.enforce.nft.libnftables._runner", None)

    def body() -> None:
        run_commands(render_fresh(baseline()))
        assert "chain arrive" in run_commands("list ruleset")
        with pytest.raises(BackendError, match="syntax error"):
            run_commands("nonsense")

    in_namespaces(body)


def test_without_library_and_program_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.enforce.nft.libnftables.LIBRARY", "libnothing.so.0")
    monkeypatch.setattr("gateway.enforce.nft.libnftables._runner", None)
    monkeypatch.setattr("gateway.enforce.nft.libnftables._SEARCH_PATH", "/nowhere")
    with pytest.raises(BackendError, match="install the package nftables") as caught:
        run_commands("list ruleset")
    assert not caught.value.transient
