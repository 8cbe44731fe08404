"""Findings: what is no mistake, and yet to be looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.app.baseline import baseline_text
from gateway.app.parts import gates
from gateway.config import Config, find_findings, load
from gateway.core.errors import ConfigError
from gateway.core.model import AnchorKind
from tests.written import edit, key, public_pem, put, site

__all__ = ["public_pem", "site"]  # fixtures


def subjects(config: Config) -> list[str]:
    findings = find_findings(config)
    assert all(finding.what and finding.mend for finding in findings)
    return [finding.subject for finding in findings]


def test_a_device_without_an_anchor_is_a_finding(site: Path) -> None:
    config = load(site / "ragate.yaml")
    # The second is replayable; the third time that alerts of packets name it to nobody.
    assert subjects(config) == ["device cam-2", "source verifier", "device cam-2"]
    edit(site / "devices.yaml", '["fd77:1:0:2::/64"]', '["fd77:1:0:2::/64"]\n    anchor: l3')
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: 10.77.2.2:8102")
    assert subjects(load(site / "ragate.yaml")) == []


def test_anchors_reach_the_path_gate_and_the_baseline_for_boot(site: Path) -> None:
    edit(
        site / "devices.yaml",
        "anchor: upstream",
        'anchor: l2\n    interface: cams\n    mac: "02:00:5E:10:00:0b"',
    )
    config = load(site / "ragate.yaml")
    binding = config.devices[0].binding
    assert (binding.anchor, binding.interface, binding.mac.hex()) == (AnchorKind.L2, "cams", "02005e10000b")
    assert gates.baseline(config).sources == ("from.bound4", "from.bound6")
    text = baseline_text(config)
    assert 'add element inet ragate from.bound4 { "cams" . 02:00:5e:10:00:0b . 10.77.1.11 }' in text
    assert text.index("ragate from.bound6 {") < text.index("add element inet ragate filled")


def test_an_anchor_that_nobody_can_look_at_is_a_finding(site: Path) -> None:
    edit(site / "devices.yaml", "anchor: upstream", "anchor: l2")
    config = load(site / "ragate.yaml")
    assert "device cam-1" in subjects(config)
    assert gates.baseline(config).sources == ()


def test_hints_that_nobody_gives_are_a_mistake_of_the_book(site: Path) -> None:
    book = site / "policies/book.yaml"
    put(book, f"cut_on_hints: [verifier.feed, hook]\n{book.read_text(encoding='utf-8')}")
    with pytest.raises(ConfigError, match=r"book\.yaml:1:31: the main file has no source of hints named 'hook'"):
        load(site / "ragate.yaml")
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: [10.77.2.2]\n    feed: 10.77.2.2:8101")
    edit(site / "ragate.yaml", "doors:\n", "doors:\n  hook: {socket: hook.sock, users: [0]}\n")
    config = load(site / "ragate.yaml")
    assert config.hint_sources == ("hook", "verifier.feed", "gateway.alerts")
    assert config.book.cut_on_hints == {"hook", "verifier.feed"}
    assert config.hook is not None
    assert config.hook.uids == frozenset({0})
    assert config.hook.socket == site / "hook.sock"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("doors:\n", "doors:\n  hook: {}\n", "hook needs 'users'"),
        ("doors:\n", "doors:\n  hook: {users: []}\n", "no user is listed"),
        ("doors:\n", "doors:\n  hook: {users: [nobody-of-that-name]}\n", "there is no user"),
        ("doors:\n", "doors:\n  hook: {users: [0], sockets: x}\n", "did you mean 'socket'"),
        ("name: verifier", "name: hook", "is the name of hints"),
        ("name: verifier", "name: x.feed", "is the name of hints"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    feed: 10.77.2.2", "needs a port"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: {requests: 3}", "needs 'address'"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: {address: '10.0.0.1:1', requests: 0}", "whole number"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: {address: '10.0.0.1:1', per: 1d}", "out of range"),
    ],
)
def test_mistakes_about_hints_have_their_place(site: Path, old: str, new: str, said: str) -> None:
    edit(site / "ragate.yaml", old, new)
    with pytest.raises(ConfigError, match=r"ragate\.yaml:[0-9]+:[0-9]+: ") as caught:
        load(site / "ragate.yaml")
    assert said in str(caught.value)


def test_findings(site: Path) -> None:
    edit(site / "devices.yaml", '["fd77:1:0:2::/64"]', "[10.77.1.11, 10.77.2.9, 127.0.0.9]\n    anchor: l3")
    put(site / "cam-2.key", key("cam-1"))
    edit(site / "ragate.yaml", '"127.0.0.1:8080"', '"0.0.0.0:8080"')
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: []")
    edit(site / "policies/book.yaml", "services:\n", "services: []\nx: [")
    edit(site / "policies/book.yaml", "x: [", "")
    text = (site / "policies/book.yaml").read_text(encoding="utf-8")
    put(site / "policies/book.yaml", "\n".join(line for line in text.splitlines() if "feed" not in line) + "\n")
    assert subjects(load(site / "ragate.yaml")) == [
        "services",
        "address 10.77.1.11",
        "device cam-2",  # a loopback address
        "device cam-2",  # another device's key
        "source verifier",
        "device cam-2",  # may reach the door
        "source verifier",  # replayable
        "console",
    ]


def test_many_devices_make_one_finding(site: Path) -> None:
    config = load(site / "ragate.yaml")
    loose = config.devices[1]
    many = tuple(replace(loose, id=f"d{i}", binding=replace(loose.binding, device=f"d{i}")) for i in range(9))  # type: ignore[arg-type]
    config = replace(config, devices=(*many,), book=replace(config.book, devices={}))
    findings = [finding for finding in find_findings(config) if "borrow" in finding.what]
    assert [finding.subject for finding in findings] == ["devices d0, d1, d2, d3, d4 and 4 more"]
