"""SEDIMENT's device database as an inventory to be.

What lives here: reading the database, and joining it with the present inventory. The database knows who is enrolled
and with which key, and of addresses only what a device once claimed: what an operator wrote of bindings stays. What
must not: writing any file, or judging a row's values (``gateway.sediment.inventory`` does).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gateway.config.entries import Entry
from gateway.config.imports import KEYS_NAME, Import, changes_between, inventory_text
from gateway.config.parsing import parse_address
from gateway.config.values import Inventory
from gateway.core.errors import ConfigError
from gateway.core.model import Binding, Device, DeviceId, SourceName
from gateway.core.policy import Finding, Severity
from gateway.sediment.inventory import DEVICE_QUERY, SedimentDevice, read_sediment_devices

#: Seconds to wait for a verifier that is writing its database.
BUSY = 2.0
#: The source that imported devices get, unless another is given.
SOURCE = SourceName("verifier")

_UNSEEN = "it has never attested: no device, or one whose address the verifier has not seen"
_NOBODY = Inventory((), {})


class Consent(NamedTuple):
    """What an operator lets an import do, besides adding devices and following the keys of known ones.

    ``rebind``    bind known devices to the address in the database, with anchor ``none``, where theirs is another.
    ``overwrite`` move known devices here from another source, and drop those of this source that are not listed.
    ``unseen``    add devices that have never attested, too.
    ``published`` take over keys that everybody has.
    """

    rebind: bool = False
    overwrite: bool = False
    unseen: bool = False
    published: bool = False


class _Judged(NamedTuple):
    """What becomes of a row: the device as it shall be, or None; and what is told of it."""

    device: Device | None
    severity: Severity
    told: tuple[str, ...]


def import_sediment_db(
    path: Path,
    source: SourceName = SOURCE,
    present: Inventory = _NOBODY,
    consent: Consent = Consent(),  # noqa: B008 - frozen value
) -> Import:
    """Propose the present inventory joined with SEDIMENT's SQLite database, which is opened read-only.

    The addresses of new devices are proposals with anchor ``none``. Known devices keep source, binding and labels.
    Raises ``ConfigError`` when the file cannot be read.
    """
    known = {device.id: device for device in present.devices}
    taken: dict[DeviceId, Device] = {}
    keys = dict(present.hmac_keys)
    listed: set[str] = set()
    findings: list[Finding] = []
    left_out: list[str] = []
    notes: list[str] = []
    refused_key = False
    for row in _read(path):
        listed.add(row.text)
        old = None if row.device is None else known.get(row.device)
        device, severity, told = _judge(row, old, source, consent)
        subject = f"row {row.row} ({row.text})"
        if told:
            findings.append(Finding(severity, subject, *_in_one(told)))
        if device is not None:
            taken[device.id], keys[device.id] = device, row.key
            notes += _kept_binding(row, device)
        elif old is None:
            left_out.append(f"{subject}: {'; '.join(told)}")
        refused_key |= severity == "error" and row.published
    devices: list[Device] = []
    for device in present.devices:
        if device.id not in listed and device.source == source:
            if consent.overwrite:
                continue
            notes.append(f"= {device.id} stays, though the database does not list it; --overwrite drops it")
        devices.append(taken.get(device.id, device))
    devices += (device for device in taken.values() if device.id not in known)
    # Devices of which SEDIMENT does not speak have none.
    lines = [f"{device.id} {keys[device.id].hex()}\n" for device in devices if device.id in keys]
    text = inventory_text(map(_entry, devices), KEYS_NAME if lines else "", left_out)
    changes = (*changes_between(devices, present.devices), *notes)
    return Import(text, "".join(lines), tuple(findings), changes, len(taken), refused_key)


def _read(path: Path) -> Sequence[SedimentDevice]:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY)) as database:
            # Other people write this table: text that is not UTF-8 must be told of, not end the import.
            database.text_factory = lambda data: data.decode("utf-8", "replace")
            return read_sediment_devices(database.execute(DEVICE_QUERY))
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
        # UnicodeDecodeError: names in SQLite's own messages. MemoryError: a size in the file that no file has.
        what = "a size in it is impossible" if isinstance(error, MemoryError) else str(error)
        raise ConfigError(str(path), f"is no SEDIMENT database: {what}", "name its sediment.db") from error


def _judge(row: SedimentDevice, old: Device | None, source: SourceName, consent: Consent) -> _Judged:
    if row.device is None or not row.key:
        return _Judged(None, "error", row.findings)
    seen = row.attested or consent.unseen
    if old is None and not seen:
        return _Judged(None, "warning", (f"{_UNSEEN}; let it attest and import again, or --unseen",))
    binds = old is None or (consent.rebind and seen and bool(row.address))
    told = [finding for finding in row.findings if binds or finding not in row.of_address]
    if binds and not row.attested:
        told.append(f"{_UNSEEN}; write the device's address, or take the row out")
    refused = row.published and not consent.published
    if old is not None and source not in old.sources and not consent.overwrite:
        refused = True
        told.append(f"the inventory has it from source {old.source}; leave it there, or --overwrite moves it")
    if refused or (old is None and not row.address):
        return _Judged(None, "error", tuple(told))
    if old is None or (binds and not _bound(old, row.address)):
        binding = Binding(row.device, (parse_address(row.address),))
    else:
        binding = old.binding
    if old is None:
        return _Judged(Device(row.device, source, binding), "warning", tuple(told))
    if source in old.sources:
        return _Judged(replace(old, binding=binding), "warning", tuple(told))
    return _Judged(replace(old, source=source, also=(), binding=binding), "warning", tuple(told))


def _bound(device: Device, address: str) -> bool:
    packed = parse_address(address).packed
    return any(own.covers(packed) for own in device.binding.addresses)


def _kept_binding(row: SedimentDevice, device: Device) -> Iterable[str]:
    """Say when the verifier has seen a device at an address that the inventory does not bind to it."""
    if row.attested and row.address and not _bound(device, row.address):
        own = ",".join(map(str, device.binding.addresses))
        anchor = device.binding.anchor.value
        yield f"= {device.id} keeps {own} {anchor}; the database has {row.address}: --rebind takes it"


def _entry(device: Device) -> Entry:
    binding = device.binding
    addresses = tuple(map(str, binding.addresses))
    age = "" if device.max_age is None else f"{device.max_age:g}"
    passes = "" if device.recovery_passes is None else str(device.recovery_passes)
    return Entry(
        device.id,
        device.source,
        addresses,
        binding.anchor.value,
        "",
        device.labels,
        device.also,
        max_age=age,
        recovery_passes=passes,
        interface=binding.interface,
        mac=binding.mac.hex(":"),
    )


def _in_one(told: Iterable[str]) -> tuple[str, str]:
    """Everything about one row in one line: what is the matter, and the mends in the same order."""
    parts = [sentence.rpartition("; ") for sentence in told]
    mends = [mend for said, _, mend in parts if said]
    what = ", and ".join(said or mend for said, _, mend in parts)
    return what, ", ".join(mends) or "correct it in SEDIMENT, or write the device by hand"
