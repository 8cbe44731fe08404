"""``ragate policy validate``: what is printed and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import policy
from gateway.cli.commands import app

CLEAN = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: ksp-cctv}
spec:
  selector: {matchLabels: {app: cctv}}
  process:
    matchPaths:
      - path: /usr/bin/nc
  action: Block
"""
WARNING = CLEAN.replace("path: /usr/bin/nc", "path: /usr/bin/*")
ERROR = CLEAN.replace("spec:", "spec:\n  severity: 11")


def run(*arguments: str, data: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["policy", "validate", *arguments], input=data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


@pytest.mark.parametrize(
    ("content", "options", "code"),
    [
        (CLEAN, [], 0),
        (CLEAN, ["--strict"], 0),
        (WARNING, [], 0),
        (WARNING, ["--strict"], 1),
        (ERROR, [], 1),
        ("a: [", [], 2),
        ("", ["--strict"], 0),
    ],
)
def test_the_exit_code_says_how_bad_it_is(file: Path, content: str, options: list[str], code: int) -> None:
    file.write_text(content)
    assert run(str(file), *options).exit_code == code


def test_the_text_names_place_code_reason_and_mend(file: Path) -> None:
    file.write_text(ERROR)
    lines = run(str(file)).stdout.splitlines()
    assert lines[0] == f"{file}:5:13: error: KA-SEVERITY: severity 11; write 1 to 10"
    assert lines[1] == "    The schema takes 1 to 10."
    assert lines[-2] == "container [app=cctv]: 1 of 256 table entries"
    assert lines[-1] == "1 documents in 1 files: 1 errors, 0 warnings, 0 notes"


def test_json_is_one_object_for_machines(file: Path) -> None:
    file.write_text(WARNING)
    found = json.loads(run(str(file), "-o", "json").stdout)
    assert found["mode"] == "vm"
    assert found["documents"] == 1
    assert found["counts"] == {"error": 0, "warning": 1, "note": 0}
    assert found["budgets"] == [{"subject": "container [app=cctv]", "entries": 1, "limit": 256, "documents": 1}]
    (finding,) = found["findings"]
    assert set(finding) == {"file", "line", "column", "severity", "code", "what", "why", "mend"}
    assert (finding["line"], finding["severity"], finding["code"]) == (8, "warning", "KA-PATH-WILDCARD")


def test_the_mode_decides(file: Path) -> None:
    file.write_text(CLEAN.replace("{matchLabels: {app: cctv}}", "{}"))
    assert run(str(file)).exit_code == 1
    assert run(str(file), "--mode", "k8s").exit_code == 0
    assert run(str(file), "--mode", "docker").exit_code == 2


def test_all_files_are_judged_as_one(file: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    file.write_text(CLEAN)
    second.write_text(CLEAN)
    assert run(str(file)).exit_code == 0
    together = run(str(file), str(second))
    assert together.exit_code == 1
    assert "second.yaml:3:18: error: KA-NAME-TWICE" in together.stdout


def test_standard_input_is_a_file_too() -> None:
    assert run("-", data=CLEAN).exit_code == 0
    assert run("-", data=ERROR).stdout.startswith("-:5:13: error: KA-SEVERITY")


def test_a_file_that_cannot_be_read_ends_at_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run(str(file))
    assert missing.exit_code == 2
    assert "cannot be read: No such file or directory" in missing.stderr
    assert run(str(tmp_path)).exit_code == 2
    monkeypatch.setattr(policy, "MAX_FILE", 10)
    file.write_text(CLEAN)
    large = run(str(file))
    assert large.exit_code == 2
    assert "larger than 10 bytes" in large.stderr


def test_control_characters_of_a_document_do_not_reach_the_terminal(file: Path) -> None:
    file.write_text(CLEAN.replace("ksp-cctv", '"x\\e[31m"'))
    assert "\x1b" not in run(str(file)).stdout
