"""Hints: who may be named, by what binding, and every way of naming somebody else."""

from __future__ import annotations

import pytest

from gateway.core.errors import Refusal
from gateway.core.model import (
    Address,
    AnchorKind,
    Binding,
    DeviceId,
    Envelope,
    Hint,
    Instant,
    Rejected,
    SourceName,
)
from gateway.sediment.hints import REASONS, FeedHints, HookHints
from gateway.sediment.wire import Reason

HOOK, FEED, VERIFIER = SourceName("hook"), SourceName("verifier.feed"), SourceName("verifier")
NOW = Instant(1_795_283_400.0, 1_000.0)


def binding(name: str, *addresses: str, anchor: AnchorKind = AnchorKind.L2) -> tuple[DeviceId, Binding]:
    device = DeviceId(name)
    return device, Binding(device, tuple(map(Address.parse, addresses)), anchor)


BINDINGS = dict(
    (
        binding("cam-1", "10.77.1.11", "fd77:0:0:1::/64"),
        binding("cam-2", "10.77.1.12"),
        binding("loose", "10.77.1.13", anchor=AnchorKind.NONE),
    )
)
hook, feed = HookHints(HOOK, BINDINGS), FeedHints(FEED, VERIFIER, BINDINGS)


def told(*arguments: bytes) -> Hint | Rejected:
    return hook.authenticate(Envelope(b"\0".join(arguments), HOOK, "unix:0", NOW), lambda _device: None)


def fed(payload: bytes) -> Hint | Rejected:
    return feed.authenticate(Envelope(payload, FEED, "10.77.2.2:8101", NOW), lambda _device: None)


def refusal(result: Hint | Rejected) -> Refusal:
    assert isinstance(result, Rejected)
    assert not result.authentic
    return result.refusal


def test_a_failure_at_the_devices_own_address() -> None:
    assert told(b"cam-1", b"10.77.1.11", b"FAILED_ATTEST") == Hint(DeviceId("cam-1"), HOOK, True, "FAILED_ATTEST")


def test_an_address_inside_an_anchored_prefix() -> None:
    assert isinstance(told(b"cam-1", b"fd77:0:0:1::99", b"FAILED_AUTH"), Hint)


def test_every_reason_of_sediment_is_known_and_failures_alone_are_adverse() -> None:
    assert set(REASONS) == {reason.name.encode() for reason in Reason}
    for reason, adverse in REASONS.items():
        assert adverse is (b"FAIL" in reason or b"REJECT" in reason)
        result = told(b"cam-1", b"10.77.1.11", reason)
        assert isinstance(result, Hint)
        assert result.adverse is adverse


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"cam-3",
        b"CAM-1",
        b"cam-1 ",
        b" cam-1",
        b"cam-1\n",
        "\u0441am-1".encode(),  # Cyrillic es
        "cam\u20101".encode(),  # U+2010 hyphen
        "cam-1\u200b".encode(),
        "\uff43\uff41\uff4d-1".encode(),
        b"cam-1\xff",
        b"\xff\xfe",
        b"../cam-1",
        b"cam-1;reboot",
        b"$(reboot)",
        b"cam-1" * 60,
        b"a" * 70_000,
    ],
)
def test_look_alike_and_hostile_ids_name_nobody(name: bytes) -> None:
    for result in (told(name, b"10.77.1.11", b"FAILED_ATTEST"), fed(name + b",incorrect,0.013206")):
        assert refusal(result) is Refusal.DEVICE
        assert isinstance(result, Rejected)
        assert result.device.isascii()
        assert result.device.isprintable() or not result.device
        assert len(result.device) <= 64


@pytest.mark.parametrize("address", [b"10.77.1.12", b"127.0.0.1", b"192.168.0.166", b"fd77:0:0:2::1"])
def test_an_address_that_is_not_the_devices_own_names_nobody(address: bytes) -> None:
    assert refusal(told(b"cam-1", address, b"FAILED_ATTEST")) is Refusal.BINDING


def test_without_an_anchor_a_device_cannot_be_named() -> None:
    assert refusal(told(b"loose", b"10.77.1.13", b"FAILED_ATTEST")) is Refusal.BINDING
    assert refusal(fed(b"loose,incorrect,0.013206")) is Refusal.BINDING


@pytest.mark.parametrize(
    "address",
    [
        b"",
        b"10.77.1.11 ",
        b"10.77.1.011",
        b"10.77.1.11/32 x",
        b"0x0a4d010b",
        b"172837131",
        b"fd77:0:0:1::/64",
        "\uff11\uff10.77.1.11".encode(),
        b"10.77.1.11;reboot",
        b"1" * 4_000,
    ],
)
def test_what_is_no_address_is_refused(address: bytes) -> None:
    assert refusal(told(b"cam-1", address, b"FAILED_ATTEST")) is Refusal.LENGTHS


@pytest.mark.parametrize("reason", [b"", b"PASSED", b"pass", b"PASS ", b"Bad Reason", b"FAILED_ATTEST\xff", b"7"])
def test_what_is_no_reason_is_refused(reason: bytes) -> None:
    assert refusal(told(b"cam-1", b"10.77.1.11", reason)) is Refusal.LENGTHS


@pytest.mark.parametrize("fields", [(), (b"cam-1",), (b"cam-1", b"10.77.1.11"), (b"cam-1",) * 4])
def test_other_numbers_of_fields_are_refused(fields: tuple[bytes, ...]) -> None:
    assert refusal(told(*fields)) is Refusal.LENGTHS


def test_the_feed_speaks_of_its_own_source_alone() -> None:
    assert fed(b"cam-1,incorrect,0.013206") == Hint(DeviceId("cam-1"), FEED, True, "incorrect", VERIFIER)
    assert fed(b"cam-1,correct,-0.000001") == Hint(DeviceId("cam-1"), FEED, False, "correct", VERIFIER)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"cam-1",
        b"cam-1,incorrect",
        b"cam-1,incorrect,",
        b"cam-1,incorrect,0.1",
        b"cam-1,incorrect,1e6",
        b"cam-1,incorrect,nan",
        b"cam-1,Incorrect,0.013206",
        b"cam-1,incorrect,0.013206\n",
        b"cam-1,wrong,0.013206",
    ],
)
def test_what_is_no_payload_is_refused(payload: bytes) -> None:
    assert refusal(fed(payload)) is Refusal.LENGTHS


def test_an_id_with_commas_is_not_cut_into_another() -> None:
    assert refusal(fed(b"cam-1,incorrect,0.1,incorrect,0.013206")) is Refusal.DEVICE
