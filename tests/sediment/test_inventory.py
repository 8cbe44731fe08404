from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sediment.inventory import DEVICE_QUERY, SedimentDevice, Value, read_sediment_devices
from tests.sediment.recorded import FIXTURES, HMAC_KEY, published_hmac_keys, unhurried

OTHER_KEY = HMAC_KEY[::-1]


ATTESTED = 1_795_283_400


def one(*row: Value) -> SedimentDevice:
    """A row of a device that has attested."""
    (device,) = read_sediment_devices([(*row, ATTESTED)])
    return device


def test_the_demo_database() -> None:
    database = sqlite3.connect(f"file:{FIXTURES / 'sediment.db'}?mode=ro&immutable=1", uri=True)
    devices = read_sediment_devices(database.execute(DEVICE_QUERY))
    database.close()
    assert {device.device: device.key for device in devices} == published_hmac_keys()
    assert all(device.usable for device in devices)
    assert all(any("published" in finding for finding in device.findings) for device in devices)
    by_id = {device.text: device for device in devices}
    assert by_id["Nordic-001"].address == "47.16.2.18"
    assert any("47.16.2.18 stands in rows" in finding for finding in by_id["Nordic-001"].findings)
    assert any("loopback" in finding for finding in by_id["Ubuntu-001"].findings)
    assert not any("stands in rows" in finding for finding in by_id["Ubuntu-001"].findings)
    assert [device.text for device in devices if device.attested] == ["Ubuntu-001"]
    assert all(device.published for device in devices)


def test_a_good_row_has_no_findings() -> None:
    assert one("cam-1", "tcp:10.77.1.11:8899", HMAC_KEY) == SedimentDevice(
        1, "cam-1", one("cam-1", "", b"").device, "10.77.1.11", HMAC_KEY, (), attested=True
    )


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("udp:10.77.1.11:8899", "10.77.1.11"),
        ("tcp:fd77:1::11:8899", "fd77:1::11"),
        ("tcp:[fd77:1::11]:8899", "fd77:1::11"),
    ],
)
def test_addresses_without_their_port(endpoint: str, address: str) -> None:
    device = one("cam-1", endpoint, HMAC_KEY)
    assert (device.address, device.findings) == (address, ())


@pytest.mark.parametrize(
    "endpoint",
    ["", "tcp:", "tcp:10.77.1.11", "10.77.1.11:8899", "ble:10.77.1.11:1", "tcp:10.77.1.0/24:1", "tcp:0.0.0.0:1",
     "tcp:fd77:1::/64:1", "tcp:cam-1.example:8899", "tcp:10.77.1.11:http", None, 7, b"tcp:10.77.1.11:8899",
     "\x1b[31m"],
)  # fmt: skip
def test_a_row_without_a_usable_address_keeps_id_and_key(endpoint: Value) -> None:
    device = one("cam-1", endpoint, HMAC_KEY)
    assert (device.usable, device.address) == (True, "")
    assert "by hand" in device.findings[0]
    assert "\x1b" not in device.findings[0]


@pytest.mark.parametrize(
    "name", ["", "-cam", "a b", "../x", "a..b", "x" * 65, "caméra", "'; --", None, 5, b"cam-1"]
)
def test_an_id_that_cannot_be_used_is_said(name: Value) -> None:
    device = one(name, "tcp:10.77.1.11:8899", HMAC_KEY)
    assert not device.usable
    assert "id must be" in device.findings[0]
    assert len(device.text) <= 64


@pytest.mark.parametrize("key", [None, b"", "text", 5, bytes(32), HMAC_KEY[:31]])
def test_a_key_that_cannot_be_used_is_said(key: Value) -> None:
    device = one("cam-1", "tcp:10.77.1.11:8899", key)
    assert not device.usable
    assert "authKey" in device.findings[0]


def test_a_row_of_another_shape_is_said() -> None:
    assert "columns" in one("cam-1").findings[0]


@pytest.mark.parametrize(
    ("value", "attested"), [(1, True), (ATTESTED, True), (0, False), (-1, False), (None, False), ("1", False)]
)
def test_who_has_attested(value: Value, attested: bool) -> None:
    (device,) = read_sediment_devices([("cam-1", "tcp:10.77.1.11:8899", HMAC_KEY, value)])
    assert device.attested is attested


def test_what_is_about_the_address_is_told_apart() -> None:
    rows = [(f"cam-{n}", "tcp:10.77.1.11:1", None if n else HMAC_KEY, ATTESTED) for n in range(2)]
    first, second = read_sediment_devices(rows)
    assert first.of_address == first.findings == ("10.77.1.11 stands in rows 1, 2; give each its own",)
    assert second.of_address == first.of_address
    assert len(second.findings) == 2


def test_what_rows_share_is_said_at_each_of_them() -> None:
    rows: list[tuple[Value, ...]] = [
        ("cam-1", "tcp:10.77.1.11:1", HMAC_KEY, 0),
        ("cam-1", "tcp:10.77.1.12:1", OTHER_KEY, 0),
        ("cam-2", "tcp:10.77.1.11:1", HMAC_KEY, 0),
    ]
    first, second, third = read_sediment_devices(rows)
    assert [first.usable, second.usable, third.usable] == [False, False, True]
    for device in (first, third):
        assert any("10.77.1.11 stands in rows 1, 3" in finding for finding in device.findings)
        assert any("authKey stands in rows 1, 3" in finding for finding in device.findings)
    for device in (first, second):
        assert any("id stands in rows 1, 2" in finding for finding in device.findings)


def test_what_a_thousand_rows_share_stays_readable() -> None:
    rows = [(f"cam-{number}", "tcp:10.77.1.11:1", HMAC_KEY, 0) for number in range(1000)]
    assert all(len(finding) < 200 for device in read_sediment_devices(rows) for finding in device.findings)


def test_keys_are_never_shown() -> None:
    shown = repr(one("cam-1", "tcp:10.77.1.11:8899", HMAC_KEY))
    assert repr(HMAC_KEY) not in shown
    assert "key" not in shown


values = st.one_of(
    st.none(), st.integers(), st.floats(), st.binary(max_size=40), st.text(st.characters(), max_size=80)
)


@unhurried
@given(st.lists(st.lists(values, max_size=5), max_size=6))
def test_every_row_yields_one_result_whatever_it_holds(rows: list[list[Value]]) -> None:
    devices = read_sediment_devices(rows)
    assert [device.row for device in devices] == list(range(1, len(rows) + 1))
    for device in devices:
        assert device.usable or device.findings
        assert set(device.of_address) <= set(device.findings)
        assert all(finding.isprintable() and finding.isascii() for finding in device.findings)
