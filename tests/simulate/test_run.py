from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager

import pytest

from gateway.simulate import run as run_module
from gateway.simulate.ground import Ground
from gateway.simulate.namespaces import NamespacesUnavailableError
from gateway.simulate.run import EXIT_FAILED, EXIT_INTERRUPTED, run


def test_without_ground_it_says_so_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ground(why: str) -> AbstractContextManager[Ground]:
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(run_module, "loopback_ground", no_ground)
    out = io.StringIO()
    assert run(once=True, out=out) == EXIT_FAILED
    assert out.getvalue().splitlines() == [
        "FAILED the surrogate site is set up",
        "       instead: No space left on device",
    ]


def test_ctrl_c_while_the_ground_is_made_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(why: str) -> AbstractContextManager[Ground]:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(run_module, "loopback_ground", interrupted)
    out = io.StringIO()
    assert run(once=True, out=out) == EXIT_INTERRUPTED
    assert out.getvalue() == ""


def test_root_without_the_right_falls_back_to_the_relay_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def refused() -> AbstractContextManager[Ground]:
        msg = "unshare: Operation not permitted"
        raise NamespacesUnavailableError(msg)

    def loopback(why: str) -> AbstractContextManager[Ground]:
        said.append(why)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(run_module, "namespace_ground", refused)
    monkeypatch.setattr(run_module, "loopback_ground", loopback)
    assert run(once=True, out=io.StringIO()) == EXIT_INTERRUPTED
    assert "unshare: Operation not permitted" in said[0]
