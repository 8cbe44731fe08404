"""Some verdicts, one kill of each process: the short version of ``make chaos``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import SHORT, Chaos
from tests.netns import in_namespaces

SEED = 20_261_122


@pytest.mark.netns
@pytest.mark.long
def test_kills_at_random_moments_open_nothing_and_lose_no_cut(tmp_path: Path) -> None:
    def body() -> None:
        chaos = Chaos(tmp_path, SEED, SHORT)
        chaos.run()
        summary = chaos.summary()
        assert not chaos.ledger.violations, summary
        counts = chaos.ledger.counts
        assert counts["connections that came about"] > 0, summary
        assert counts["verified cut moments"] > 0, summary
        assert all(counts[f"killed: {one}"] == 1 for one in ("gateway", "agent", "kubearmor")), summary

    in_namespaces(body)
