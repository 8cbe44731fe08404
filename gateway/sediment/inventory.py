"""SEDIMENT's device table as inventory entries to be. Rows come in as values; no database is opened here.

The table is written by other people: every row yields exactly one result, and whatever is wrong with it is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from gateway.core.model import Address, DeviceId, parse_device_id
from gateway.sediment.keys import check_hmac_key, is_published_hmac_key
from gateway.sediment.text import TEXT_LIMIT, printable

Value = str | bytes | int | float | None
"""What SQLite has in a column, whatever type the column was declared with."""

DEVICE_QUERY = "SELECT id, proverEndpoint, authKey, lastAttestation FROM Device ORDER BY rowid"
"""What to ask SEDIMENT's SQLite database for, in the order of columns that ``read_sediment_devices`` takes."""


@dataclass(frozen=True, slots=True)
class SedimentDevice:
    """One row of the device table.

    ``row``       number of the row, from 1.
    ``text``      the id as the table has it, printable and bounded.
    ``device``    the id, or None when the row cannot be used; the findings then say why.
    ``address``   address text without port, or "" when there is none that a device can send from.
    ``key``       the 32-byte HMAC key, or b"" when there is none; never shown.
    ``findings``  sentences for people: what is wrong or doubtful, and the mend.
    ``attested``  whether the verifier has ever judged its evidence, as good or bad. Nothing else in the table tells
                  a device from a server that is listed like one, or an address seen from one written in advance.
    ``of_address`` those of the findings that are about the address alone.
    """

    row: int
    text: str
    device: DeviceId | None
    address: str
    key: bytes = field(repr=False)
    findings: tuple[str, ...]
    attested: bool = False
    of_address: tuple[str, ...] = ()

    @property
    def published(self) -> bool:
        """Whether everybody has its key."""
        return bool(self.key) and is_published_hmac_key(self.key)

    @property
    def usable(self) -> bool:
        """Whether the row gives an id and a key; an address may still have to be written by hand."""
        return self.device is not None and bool(self.key)


def read_sediment_devices(rows: Iterable[Sequence[Value]]) -> tuple[SedimentDevice, ...]:
    """Turn rows, with the columns of ``DEVICE_QUERY``, into one result each, in order. Never raises."""
    devices = [_read_row(number, row) for number, row in enumerate(rows, 1)]
    return tuple(_compare(devices))


def _read_row(number: int, row: Sequence[Value]) -> SedimentDevice:
    if len(row) != 4:
        what = f"{len(row)} columns; a row is id, proverEndpoint, authKey, lastAttestation"
        return SedimentDevice(number, "", None, "", b"", (what,))
    findings: list[str] = []
    of_address: list[str] = []
    device = _read_id(row[0], findings)
    address = _read_address(row[1], of_address)
    key = _read_key(row[2], findings)
    # SEDIMENT writes the UNIX time of each attestation that it has judged; 0 as the table is made.
    attested = isinstance(row[3], int) and row[3] > 0
    told = (*findings, *of_address)
    return SedimentDevice(number, _text(row[0]), device, address, key, told, attested, tuple(of_address))


def _read_id(value: Value, findings: list[str]) -> DeviceId | None:
    try:
        return parse_device_id(value if isinstance(value, str) else "")
    except ValueError:
        findings.append("the id must be 1 to 64 of A-Z a-z 0-9 . _ : - without '..'; rename the device in SEDIMENT")
        return None


def _read_address(value: Value, findings: list[str]) -> str:
    """The middle of ``tcp:192.0.2.7:8899``; the port is the one that the device listens on, of no use here."""
    protocol, _, rest = (value if isinstance(value, str) else "").partition(":")
    address, _, port = rest.rpartition(":")
    try:
        parsed = Address.parse(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        parsed = None
    if parsed is None or protocol not in {"tcp", "udp"} or not port.isdecimal() or parsed.prefix == 64:
        findings.append(
            f"proverEndpoint '{_text(value)}' has no usable address; write the device's address by hand"
        )
        return ""
    if ip_address(parsed.packed).is_loopback:
        findings.append(f"{parsed} is a loopback address; write the address that the gateway sees")
    return str(parsed)


def _read_key(value: Value, findings: list[str]) -> bytes:
    if not isinstance(value, bytes) or not value:
        findings.append("no authKey; enrol the device in SEDIMENT first")
        return b""
    try:
        check_hmac_key(value)
    except ValueError as error:
        findings.append(f"authKey: {error}")
        return b""
    if is_published_hmac_key(value):
        findings.append("authKey is one of SEDIMENT's published demo keys: anyone can use it; make a new one")
    return value


def _compare(devices: Sequence[SedimentDevice]) -> Iterable[SedimentDevice]:
    """Add what only shows between rows: an id, an address or a key that several of them have."""
    ids: dict[DeviceId, list[int]] = defaultdict(list)
    addresses: dict[str, list[int]] = defaultdict(list)
    keys: dict[bytes, list[int]] = defaultdict(list)
    for one in devices:
        if one.device is not None:
            ids[one.device].append(one.row)
        if one.address:
            addresses[one.address].append(one.row)
        if one.key:
            keys[one.key].append(one.row)
    for one in devices:
        findings, of_address = list(one.findings), list(one.of_address)
        repeated = one.device is not None and len(ids[one.device]) > 1
        if repeated and one.device is not None:
            findings.append(f"the id stands in rows {_listed(ids[one.device])}; keep one of them")
        # Of a loopback address it is said already that it is nobody's.
        if one.address and len(addresses[one.address]) > 1 and not ip_address(one.address).is_loopback:
            of_address.append(f"{one.address} stands in rows {_listed(addresses[one.address])}; give each its own")
            findings.append(of_address[-1])
        if one.key and len(keys[one.key]) > 1:
            findings.append(f"the authKey stands in rows {_listed(keys[one.key])}; give each device its own")
        device = None if repeated else one.device
        yield replace(one, device=device, findings=tuple(findings), of_address=tuple(of_address))


def _listed(rows: Sequence[int]) -> str:
    """At most eight row numbers: a table of a million rows with one address must stay readable."""
    return ", ".join(map(str, rows[:8])) + (" and more" if len(rows) > 8 else "")


def _text(value: Value) -> str:
    """Any value of a table as short printable text."""
    if isinstance(value, bytes):
        return printable(value)
    return printable(str(value)[: TEXT_LIMIT + 1].encode("utf-8", "replace"))
