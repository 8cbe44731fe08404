"""The baseline and the removal, against a real kernel in namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.baseline import baseline_text, uninstall
from gateway.config import load
from gateway.core.errors import ConfigError
from tests.e2e.installed import Installed
from tests.e2e.kernel import admitted, table_stands, tombstones
from tests.netns import in_namespaces, run

RELAY = {"path_gate": "relay", "relay": [{"service": "feed", "listen": "127.0.0.1:18001"}]}
FEED = {"name": "feed", "address": "10.77.3.2", "port": 8001, "protocol": "tcp", "path": "relayed"}


@pytest.mark.netns
def test_the_baseline_loads_shut_and_twice_and_goes_without_a_trace(tmp_path: Path) -> None:
    config = load(Installed(tmp_path).config)
    text = baseline_text(config)

    def body() -> None:
        run("nft", "add", "table", "inet", "kubearmor")
        others = run("nft", "list", "ruleset")
        for _ in range(2):
            run("nft", "-f", "-", stdin=text)
            assert (admitted(), tombstones()) == ({}, set())
        known = run("nft", "list", "set", "inet", "ragate", "known4")
        assert "10.77.1.11" in known
        assert "10.77.3.2 . tcp . 8001" in run("nft", "list", "set", "inet", "ragate", "gated4")
        (said, kept) = uninstall(config)
        assert "open to everybody" in said
        assert str(config.journal) in kept
        assert run("nft", "list", "ruleset") == others, "another program's table is left alone"
        assert len(uninstall(config)) == 2, "nothing there is no error"
        assert not table_stands()

    in_namespaces(body)


def test_the_relay_has_no_baseline_and_leaves_nothing(tmp_path: Path) -> None:
    config = load(Installed(tmp_path, services=[FEED], target=RELAY).config)
    with pytest.raises(ConfigError, match=r"ragate.yaml: .*relay has no nftables baseline; .*path_gate: nft"):
        baseline_text(config)
    (said, kept) = uninstall(config)
    assert "nothing stays behind" in said
    assert kept.startswith("kept: the journal")
