"""Imports: what is proposed, what is told, and that no device is dropped silently."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.config import import_sediment_db, import_yaml
from gateway.config.document import Problems
from gateway.config.entries import read_common, read_entries
from gateway.config.inventory import read_devices
from gateway.core.errors import ConfigError
from gateway.core.model import AnchorKind, Device, SourceName

VERIFIER = SourceName("verifier")
RECORDED = Path(__file__).parent / "fixtures" / "sediment" / "sediment.db"


def key(name: str) -> bytes:
    return sha256(name.encode()).digest()


def database(path: Path, rows: Sequence[tuple[object, object, object]]) -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE Device(id TEXT, proverEndpoint TEXT, authKey BLOB, status INT)")
        made.executemany("INSERT INTO Device VALUES (?, ?, ?, 1)", rows)
        made.commit()
    return path


def devices_of(text: str, path: Path = Path("x.yaml")) -> tuple[Device, ...]:
    problems = Problems()
    devices = read_devices(read_entries(text, path, problems), [VERIFIER], problems)
    problems.settle()
    return devices


def test_a_sediment_database(tmp_path: Path) -> None:
    path = database(
        tmp_path / "sediment.db",
        [
            ("cam-1", "tcp:10.77.1.11:8899", key("1")),
            ("cam-2", "tcp:10.77.1.12:8899", key("2")),
            ("lost", "none", key("3")),
            ("keyless", "tcp:10.77.1.13:8899", None),
            ("bad id", "tcp:10.77.1.14:8899", key("4")),
            ("local", "tcp:127.0.0.1:8899", key("5")),
        ],
    )
    found = import_sediment_db(path)
    devices = devices_of(found.inventory)
    assert [device.id for device in devices] == ["cam-1", "cam-2", "local"]
    assert all(device.binding.anchor is AnchorKind.NONE for device in devices)
    assert found.keys == "".join(
        f"{name} {key(number).hex()}\n" for name, number in (("cam-1", "1"), ("cam-2", "2"), ("local", "5"))
    )
    errors = {finding.subject for finding in found.findings if finding.severity == "error"}
    assert errors == {"row 3 (lost)", "row 4 (keyless)", "row 5 (bad id)"}
    assert all(subject in found.inventory for subject in errors)
    assert any("loopback" in finding.what for finding in found.findings if finding.severity == "warning")
    assert [line.split()[0:2] for line in found.changes] == [["+", "cam-1"], ["+", "cam-2"], ["+", "local"]]
    for secret in ("1", "2", "3"):
        shown = (found.inventory, *map(str, found.findings), *found.changes)
        assert all(key(secret).hex() not in text for text in shown)


def test_the_recorded_database(tmp_path: Path) -> None:
    path = tmp_path / "sediment.db"
    path.write_bytes(RECORDED.read_bytes())
    before = path.read_bytes()
    found = import_sediment_db(path)
    with closing(sqlite3.connect(path)) as opened:
        rows = [str(row[0]) for row in opened.execute("SELECT id FROM Device")]
    assert rows
    told = found.inventory + "".join(finding.subject for finding in found.findings)
    assert all(name in told for name in rows)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no database at all, but long enough to be looked at", b"SQLite format 3\x00" + b"x" * 100],
)
def test_what_is_no_sediment_database(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "sediment.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no SEDIMENT database"):
        import_sediment_db(path)
    assert path.exists() is (content is not None)


def test_a_path_is_no_part_of_a_query(tmp_path: Path) -> None:
    path = database(tmp_path / "a?mode=rwc#x.db", [("cam-1", "tcp:10.77.1.11:8899", key("1"))])
    before = sorted(os.listdir(tmp_path))
    assert "cam-1" in import_sediment_db(path).inventory
    assert sorted(os.listdir(tmp_path)) == before


def test_text_that_is_not_utf_8_is_told_of(tmp_path: Path) -> None:
    path = database(tmp_path / "sediment.db", [("cam-1", "tcp:10.77.1.11:8899", key("1"))])
    with closing(sqlite3.connect(path)) as opened:
        opened.execute(
            "INSERT INTO Device VALUES (CAST(x'63ff' AS TEXT), 'tcp:10.77.1.12:8899', ?, 1)", (key("2"),)
        )
        opened.commit()
    found = import_sediment_db(path)
    assert [device.id for device in devices_of(found.inventory)] == ["cam-1"]
    assert [finding.severity for finding in found.findings] == ["error"]


def test_yaml_is_validated_and_brought_into_the_common_form(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(
        "devices:\n- {anchor: l2, id: cam-1, addresses: ['10.0.0.1'], source: verifier, labels: {a: b c}}\n"
        "- {id: cam-2, source: verifier, addresses: [10.0.0.2], hmac_key_file: k/2.key}\n",
        encoding="utf-8",
    )
    found = import_yaml(path, [VERIFIER])
    assert devices_of(found.inventory) == devices_of(path.read_text(encoding="utf-8"))
    assert "hmac_key_file" in found.inventory
    assert read_common(found.inventory.replace('"b c"', "b"), path) is not None
    again = tmp_path / "again.yaml"
    again.write_text(found.inventory, encoding="utf-8")
    assert import_yaml(again, [VERIFIER]).inventory == found.inventory


def test_yaml_with_a_mistake_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("devices: [{id: cam-1, source: other, addresses: [10.0.0.1]}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no source is named 'other'"):
        import_yaml(path, [VERIFIER])


def test_changes_name_what_is_new_other_and_gone(tmp_path: Path) -> None:
    form = "  - {{id: {0}, source: verifier, addresses: [{1}], anchor: {2}}}\n"
    present = devices_of(
        "devices:\n" + "".join(form.format(*row) for row in (("a", "10.0.0.1", "l2"), ("b", "10.0.0.2", "l2")))
    )
    path = tmp_path / "other.yaml"
    rows = (("c", "10.0.0.3", "l3"), ("a", "10.0.0.1", "l2"))
    path.write_text("devices:\n" + "".join(form.format(*row) for row in rows), encoding="utf-8")
    assert import_yaml(path, [VERIFIER], present).changes == (
        "+ c verifier 10.0.0.3 l3",
        "- b verifier 10.0.0.2 l2",
    )
    path.write_text("devices:\n" + form.format("a", "10.0.0.9", "none"), encoding="utf-8")
    assert import_yaml(path, [VERIFIER], present).changes == (
        "~ a verifier 10.0.0.1 l2 -> verifier 10.0.0.9 none",
        "- b verifier 10.0.0.2 l2",
    )
    path.write_text(
        "devices:\n" + "".join(form.format(*row) for row in (("a", "10.0.0.1", "l2"), ("b", "10.0.0.2", "l2")))
    )
    assert import_yaml(path, [VERIFIER], present).changes == ()
