"""``ragate run``: the simulated site with the gateway on embedded defaults."""

from __future__ import annotations


def run_site(*, once: bool) -> int:
    """Tell the story; with ``once`` end after it. Returns the exit code: 0 only if every step happened."""
    # Here and not above: a real service never needs the simulator, and it is a tenth of a second to load.
    from gateway.simulate.run import run  # noqa: PLC0415

    return run(once)
