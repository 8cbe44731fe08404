"""Imports: what is proposed, what is told, and that no device is dropped silently."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.config import Consent, Import, Inventory, import_sediment_db, import_yaml
from gateway.config.document import Problems
from gateway.config.entries import read_common, read_entries
from gateway.config.inventory import read_devices
from gateway.core.errors import ConfigError
from gateway.core.model import AnchorKind, Device, DeviceId, SourceName

VERIFIER, OTHER = SourceName("verifier"), SourceName("other")
RECORDED = Path(__file__).parent / "fixtures" / "sediment" / "sediment.db"


def key(name: str) -> bytes:
    return sha256(name.encode()).digest()


def database(path: Path, rows: Sequence[tuple[object, object, object]], attested: object = 1_795_283_400) -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE Device(id TEXT, proverEndpoint TEXT, authKey BLOB, lastAttestation INT)")
        made.executemany("INSERT INTO Device VALUES (?, ?, ?, ?)", [(*row, attested) for row in rows])
        made.commit()
    return path


def devices_of(text: str, path: Path = Path("x.yaml")) -> tuple[Device, ...]:
    problems = Problems()
    devices = read_devices(read_entries(text, path, problems), [VERIFIER, OTHER], problems)
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
        rows = [str(row[0]) for row in opened.execute("SELECT id FROM Device ORDER BY rowid")]
    assert path.read_bytes() == before
    # one line for each row, whatever is the matter with it
    assert [finding.subject for finding in found.findings] == [
        f"row {number} ({name})" for number, name in enumerate(rows, 1)
    ]
    assert all(name in found.inventory for name in rows)
    assert (found.taken, found.refused_key) == (0, True)
    assert [finding.subject for finding in found.findings if finding.severity == "error"] == ["row 1 (Ubuntu-001)"]


def test_a_server_in_the_table_of_devices_is_not_taken_for_one() -> None:
    allowed = import_sediment_db(RECORDED, consent=Consent(published=True))
    assert [device.id for device in devices_of(allowed.inventory)] == ["Ubuntu-001"]
    (server,) = (finding for finding in allowed.findings if "Revocation_Server-001" in finding.subject)
    assert (server.severity, server.what.startswith("it has never attested")) == ("warning", True)
    everything = import_sediment_db(RECORDED, consent=Consent(published=True, unseen=True))
    assert everything.taken == len(everything.findings) == 11
    assert sum("it has never attested" in finding.what for finding in everything.findings) == 10


def test_a_published_key_is_an_error_unless_the_source_allows_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(RECORDED)) as opened:
        (known_to_all,) = opened.execute("SELECT authKey FROM Device WHERE id = 'RPI-001'").fetchone()
    rows = [("cam-1", "tcp:10.77.1.11:8899", known_to_all), ("cam-2", "tcp:10.77.1.12:8899", key("2"))]
    path = database(tmp_path / "sediment.db", rows)
    found = import_sediment_db(path)
    assert [(finding.severity, finding.subject) for finding in found.findings] == [("error", "row 1 (cam-1)")]
    assert (found.refused_key, [device.id for device in devices_of(found.inventory)]) == (True, ["cam-2"])
    assert known_to_all.hex() not in found.keys
    allowed = import_sediment_db(path, consent=Consent(published=True))
    assert [finding.severity for finding in allowed.findings] == ["warning"]
    assert (allowed.refused_key, allowed.taken) == (False, 2)


# --- again, over an inventory that an operator has edited ---------------------------------------------------------

EDITED = """devices:
  - {id: cam-1, source: verifier, addresses: [10.77.1.11, 'fd77:1::/64'], anchor: l2, labels: {class: camera}}
  - {id: cam-2, source: verifier, addresses: [10.77.1.12], anchor: upstream}
  - {id: gas-1, source: other, addresses: [10.77.1.21], anchor: l3}
"""
ENROLLED = [
    ("cam-1", "tcp:10.77.1.11:8899", key("1")),
    ("cam-2", "tcp:10.77.1.99:8899", key("2")),
    ("cam-3", "tcp:10.77.1.13:8899", key("3")),
]


def edited() -> Inventory:
    devices = devices_of(EDITED)
    return Inventory(devices, {device.id: key(device.id) for device in devices})


def keys_of(found: Import) -> dict[str, str]:
    return dict(line.split() for line in found.keys.splitlines())


def test_what_an_operator_wrote_stays_and_keys_follow_the_database(tmp_path: Path) -> None:
    path = database(tmp_path / "sediment.db", ENROLLED)
    found = import_sediment_db(path, VERIFIER, edited())
    after = devices_of(found.inventory)
    assert after[:3] == edited().devices
    assert [(device.id, device.binding.anchor) for device in after[3:]] == [("cam-3", AnchorKind.NONE)]
    assert keys_of(found) == {
        "cam-1": key("1").hex(),
        "cam-2": key("2").hex(),
        "gas-1": key("gas-1").hex(),
        "cam-3": key("3").hex(),
    }
    assert found.changes == (
        "+ cam-3 verifier 10.77.1.13 none",
        "= cam-2 keeps 10.77.1.12 upstream; the database has 10.77.1.99: --rebind takes it",
    )
    assert found.findings == ()
    again = Inventory(after, {device.id: bytes.fromhex(keys_of(found)[device.id]) for device in after})
    assert import_sediment_db(path, VERIFIER, again).inventory == found.inventory


def test_rebinding_is_asked_for_by_name_and_keeps_labels(tmp_path: Path) -> None:
    path = database(tmp_path / "sediment.db", ENROLLED)
    for consent in (Consent(overwrite=True), Consent(unseen=True), Consent(published=True)):
        kept = import_sediment_db(path, VERIFIER, edited(), consent)
        assert devices_of(kept.inventory)[:2] == edited().devices[:2]
    found = import_sediment_db(path, VERIFIER, edited(), Consent(rebind=True))
    first, second, *_ = devices_of(found.inventory)
    assert first == edited().devices[0], "the address is one of its own already"
    assert found.changes == (
        "~ cam-2 verifier 10.77.1.12 upstream -> verifier 10.77.1.99 none",
        "+ cam-3 verifier 10.77.1.13 none",
    )
    assert second.binding.anchor is AnchorKind.NONE
    labelled = [("cam-1", "tcp:10.77.1.98:8899", key("1"))]
    moved = import_sediment_db(database(tmp_path / "moved.db", labelled), VERIFIER, edited(), Consent(rebind=True))
    assert "class: camera" in moved.inventory
    assert "~ cam-1 verifier 10.77.1.11,fd77:1::/64 l2" in moved.changes[0]


def test_an_address_that_the_verifier_has_not_seen_rebinds_nobody(tmp_path: Path) -> None:
    path = database(tmp_path / "sediment.db", ENROLLED[:2], attested=0)
    found = import_sediment_db(path, VERIFIER, edited(), Consent(rebind=True))
    assert devices_of(found.inventory) == edited().devices
    assert (found.changes, found.taken) == ((), 2)


def test_who_is_not_listed_stays_unless_told_otherwise(tmp_path: Path) -> None:
    path = database(tmp_path / "sediment.db", ENROLLED[:1])
    kept = import_sediment_db(path, VERIFIER, edited())
    assert devices_of(kept.inventory) == edited().devices
    assert kept.changes == ("= cam-2 stays, though the database does not list it; --overwrite drops it",)
    dropped = import_sediment_db(path, VERIFIER, edited(), Consent(overwrite=True))
    assert [device.id for device in devices_of(dropped.inventory)] == ["cam-1", "gas-1"]
    assert dropped.changes == ("- cam-2 verifier 10.77.1.12 upstream",)
    assert set(keys_of(dropped)) == {"cam-1", "gas-1"}


def test_a_known_device_whose_row_is_broken_stays_as_it_is(tmp_path: Path) -> None:
    broken: list[tuple[object, object, object]] = [
        ("cam-1", "tcp:10.77.1.11:8899", None),
        ("cam-2", "none", key("2")),
        ("gas-1", "tcp:10.77.1.21:8899", key("4")),
    ]
    path = database(tmp_path / "sediment.db", broken)
    found = import_sediment_db(path, VERIFIER, edited())
    assert devices_of(found.inventory) == edited().devices
    assert {name: keys_of(found)[name] for name in ("cam-1", "gas-1")} == {
        name: key(name).hex() for name in ("cam-1", "gas-1")
    }
    assert keys_of(found)["cam-2"] == key("2").hex(), "it has its address from the inventory"
    assert [(finding.severity, finding.subject) for finding in found.findings] == [
        ("error", "row 1 (cam-1)"),
        ("error", "row 3 (gas-1)"),
    ]
    assert "from source other" in found.findings[1].what
    moved = import_sediment_db(path, VERIFIER, edited(), Consent(overwrite=True))
    assert "~ gas-1 other 10.77.1.21 l3 -> verifier 10.77.1.21 l3" in moved.changes


def test_everything_about_a_row_is_one_finding(tmp_path: Path) -> None:
    rows = [("cam-1", "tcp:127.0.0.1:8899", key("1")), ("cam-2", "tcp:127.0.0.1:8899", key("1"))]
    first, _ = import_sediment_db(database(tmp_path / "sediment.db", rows)).findings
    assert first.what == "127.0.0.1 is a loopback address, and the authKey stands in rows 1, 2"
    assert first.mend == "write the address that the gateway sees, give each device its own"


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


# --- devices of which several speak -------------------------------------------------------------------------------


def test_a_device_of_several_sources_keeps_them_and_one_without_a_key_needs_none(tmp_path: Path) -> None:
    text = """devices:
  - {id: cam-1, source: [other, verifier], addresses: [10.77.1.11], anchor: l2, max_age: 5m}
  - {id: gas-1, source: other, addresses: [10.77.1.21], anchor: l3}
"""
    present = Inventory(devices_of(text), {DeviceId("cam-1"): key("old")})
    path = database(tmp_path / "sediment.db", [("cam-1", "tcp:10.77.1.11:8899", key("1"))])
    found = import_sediment_db(path, VERIFIER, present)
    assert devices_of(found.inventory) == present.devices
    assert keys_of(found) == {"cam-1": key("1").hex()}
    assert found.findings == ()
