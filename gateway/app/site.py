"""``ragate run``: the simulated site with the gateway on embedded defaults."""

from __future__ import annotations

from gateway.simulate.run import run


def run_site(*, once: bool) -> int:
    """Tell the story; with ``once`` end after it. Returns the exit code: 0 only if every step happened."""
    return run(once)
