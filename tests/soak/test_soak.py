"""``make soak``: minutes of mixed load, kills and restarts against a real service."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.netns import unavailable


@pytest.mark.soak
@pytest.mark.netns
@pytest.mark.timeout(0)
def test_soak() -> None:
    reason = unavailable()
    if reason:
        pytest.skip(f"no network namespaces with nftables here: {reason}")
    done = subprocess.run([sys.executable, "-m", "tests.soak"], check=False)
    assert done.returncode == 0, "see the summary above"
