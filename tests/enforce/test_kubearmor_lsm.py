"""KubeArmor's record of its security module: believed only when root wrote it, and told apart from not knowing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.enforce.kubearmor.lsm import NO_ENFORCER, read_record

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is root's")


def record(folder: Path, text: object, mode: int = 0o600) -> Path:
    path = folder / "record"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    path.chmod(mode)
    return path


def test_the_module_of_the_record(tmp_path: Path) -> None:
    assert read_record(record(tmp_path, {"ActiveLSM": "BPFLSM", "HostSecurity": True})) == ("BPFLSM", "")


def test_none_is_none(tmp_path: Path) -> None:
    found = read_record(record(tmp_path, {"ActiveLSM": "", "HostSecurity": False}))
    assert found.enforcer == ""
    assert found.why.startswith(f"{NO_ENFORCER}: ")


@pytest.mark.parametrize("text", ["", "{", "[]", {"ActiveLSM": 7}, {}, "null"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, text: object) -> None:
    assert read_record(record(tmp_path, text)).enforcer is None


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    found = read_record(record(tmp_path, {"ActiveLSM": "BPFLSM"}, 0o622))
    assert found.enforcer is None
    assert "only root" in found.why


@ROOT
def test_a_file_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    path = record(tmp_path, {"ActiveLSM": "BPFLSM"})
    os.chown(path, 65534, 65534)
    assert read_record(path).enforcer is None


def test_links_folders_and_nothing_are_not_known(tmp_path: Path) -> None:
    target = record(tmp_path, {"ActiveLSM": "BPFLSM"})
    link = tmp_path / "link"
    link.symlink_to(target)
    for path in (link, tmp_path, tmp_path / "none"):
        found = read_record(path)
        assert found.enforcer is None
        assert str(path) in found.why
