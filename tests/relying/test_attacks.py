"""The attacks on SEDIMENT's relying party, on real wire bytes, against this one: each is refused or contained.

The numbers are those of the protocol notes' list "what is not authenticated". Not here, because nothing of them is
said on this port: 4 (weak evidence), 6 (polling the verifier's API), 9 (published keys: refused when the
configuration is read).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from gateway.core.errors import Refusal
from gateway.core.model import Rejected, Standing
from gateway.sediment.compose import compose_message
from gateway.sediment.messages import Acceptance, ConfigMessage, Permission
from gateway.sediment.wire import MessageId, Reason
from tests.fakes.clock import ManualClock
from tests.fakes.journal import Disk
from tests.relying.real import Real, real
from tests.relying.site import AHEAD, CAM, KEYS, OTHER, Device, settle, until
from tests.sediment.recorded import make_alert


def refusals(inside: Real) -> list[Refusal]:
    return [fact.refusal for fact in inside.world.facts.all if isinstance(fact, Rejected)]


async def unanswered(inside: Real, frame: bytes) -> None:
    with suppress(ConnectionResetError):
        assert await (await Device(inside.site).send(frame)).ended() == b""


BOTH_MODES = pytest.mark.parametrize("beside", [False, True], ids=["instead", "beside"])
"""In the place of SEDIMENT's relying party, and before it."""


async def data(inside: Real) -> Acceptance:
    return await Device(inside.site).told(inside.site.data())


async def test_a_device_attests_sends_fails_and_recovers() -> None:
    """11: a failure is reversible by later passes, and by nothing less."""
    async with real() as inside:
        site = inside.site
        assert await data(inside) is Acceptance.REJECT
        await inside.alert(Reason.PASS)
        assert await data(inside) is Acceptance.ACCEPT
        live = Device(site)
        assert await live.told(site.data()) is Acceptance.ACCEPT
        inside.later()
        await inside.alert(Reason.FAILED_ATTEST)
        with pytest.raises(ConnectionResetError):
            await live.ended()
        assert await data(inside) is Acceptance.REJECT
        inside.later()
        await inside.alert(Reason.PASS)
        assert await data(inside) is Acceptance.REJECT  # the first of two
        inside.later()
        await inside.alert(Reason.PASS)
        assert await data(inside) is Acceptance.ACCEPT
        await until(lambda: len(site.app.got) == 3)


@BOTH_MODES
async def test_1_a_replayed_pass_does_not_reopen_a_device_that_failed(beside: bool) -> None:
    async with real(beside=beside) as inside:
        passed = await inside.alert(Reason.PASS)
        inside.later()
        await inside.alert(Reason.FAILED_ATTEST)
        for _ in range(3):
            inside.later()
            await inside.send(passed)
            assert inside.standing() is Standing.DISTRUSTED
            assert await data(inside) is Acceptance.REJECT
        assert refusals(inside) == [Refusal.ORDER] * 3
        assert inside.site.app.got == []


@BOTH_MODES
async def test_2_a_device_that_puts_an_old_pass_under_a_new_header_is_no_verifier(beside: bool) -> None:
    async with real(beside=beside) as inside:
        passed = await inside.alert(Reason.PASS)
        inside.later()
        await inside.alert(Reason.FAILED_ATTEST)
        inside.later()
        reheaded = compose_message(
            message_id=MessageId.ALERT,
            timestamp=inside.site.stamp(),
            nonce=b"r" * 32,
            tail=passed[75:],
            hmac_key=KEYS[CAM],
        )
        for _ in range(2):
            await unanswered(inside, reheaded)
            inside.later()
        assert refusals(inside) == [Refusal.PEER, Refusal.PEER]
        assert inside.standing() is Standing.DISTRUSTED


@BOTH_MODES
async def test_3_evidence_replayed_at_the_verifier_reopens_nothing_by_itself(beside: bool) -> None:
    """It yields one fresh, validly signed pass; a device that failed owes two."""
    async with real(beside=beside) as inside:
        await inside.alert(Reason.FAILED_ATTEST)
        inside.later()
        await inside.alert(Reason.PASS)
        assert await data(inside) is Acceptance.REJECT


async def test_5_an_alert_that_never_comes_means_nothing_good() -> None:
    async with real() as inside:
        await inside.alert(Reason.PASS)
        live = Device(inside.site)
        assert await live.told(inside.site.data()) is Acceptance.ACCEPT
        inside.later(101)  # the source's maximum age
        with pytest.raises(ConnectionResetError):
            await live.ended()
        assert await data(inside) is Acceptance.REJECT


async def test_6_the_verifier_gets_the_copy_of_an_answer_and_not_one_question() -> None:
    """An ``ip`` between a challenge and its evidence makes a genuine device fail: this port never asks."""
    async with real() as inside:
        site = inside.site
        device = Device(site)
        await device.send(site.config() + site.request())
        assert isinstance(await device.answer(), ConfigMessage)
        told = await device.frame()
        await inside.alert(Reason.PASS)
        assert isinstance(await (await device.send(site.check())).answer(), Permission)
        assert await device.told(site.data()) is Acceptance.ACCEPT
        inside.later()
        await inside.alert(Reason.FAILED_ATTEST)
        assert await data(inside) is Acceptance.REJECT
        assert [bytes(one) for one in site.verifier.got] == [told]


async def test_7_a_wish_to_attest_again_loosens_nothing_and_stops_no_data_for_long() -> None:
    async with real() as inside:
        site = inside.site
        await inside.alert(Reason.REQUESTED)
        assert await data(inside) is Acceptance.ATTEST  # not admitted, and told how it might be
        assert await data(inside) is Acceptance.REJECT
        await inside.alert(Reason.PASS)
        for _ in range(5):  # whoever reaches the verifier's API asks and asks
            await inside.alert(Reason.REQUESTED)
        assert await data(inside) is Acceptance.ATTEST
        for _ in range(5):
            await inside.alert(Reason.REQUESTED)
            assert await data(inside) is Acceptance.ACCEPT
        inside.later(10.0)
        assert await data(inside) is Acceptance.ATTEST
        await until(lambda: len(site.app.got) == 5)


@pytest.mark.parametrize("name", [b"' OR 1=1 --", b"cam-1\0", b"cam-1;reboot", b"\xd1\x81am-1", b"", b"c" * 255])
async def test_7_and_8_hostile_device_ids_are_refused_before_anything_is_done_with_them(name: bytes) -> None:
    async with real() as inside:
        tail = bytes((len(name),)) + name + bytes(4)
        for key in KEYS.values():
            frame = compose_message(
                message_id=MessageId.CONFIG, timestamp=inside.site.stamp(), nonce=bytes(32), tail=tail, hmac_key=key
            )
            await unanswered(inside, frame)
        await inside.send(make_alert(Reason.REQUESTED, inside.site.stamp(), device=name, hmac_key=None))
        assert refusals(inside) == [Refusal.DEVICE] * 3
        for fact in inside.world.facts.all:
            assert isinstance(fact, Rejected)
            assert (fact.detail + fact.device).isascii()
            assert (fact.detail + fact.device).isprintable()


async def test_10_segments_are_not_messages() -> None:
    """A first segment of one byte, several messages in one segment: SEDIMENT loses both."""
    async with real() as inside:
        site = inside.site
        await inside.alert(Reason.PASS)
        device = Device(site)
        frame = site.config()
        await device.send(frame[:1])
        await settle()
        await device.send(frame[1:] + site.data() + site.data())
        assert isinstance(await device.answer(), ConfigMessage)
        assert await device.result() is Acceptance.ACCEPT
        assert await device.result() is Acceptance.ACCEPT


@pytest.mark.parametrize(
    ("sent", "refusal"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Refusal.FRAMING),
        (b"\x7d\x01", Refusal.FRAMING),
        (b"\x00\x4b", Refusal.FRAMING),
        (b"\x00\x5a\x00\x21", Refusal.FRAMING),
    ],
)
async def test_10_what_is_no_message_closes_its_connection_and_hurts_nobody(sent: bytes, refusal: Refusal) -> None:
    async with real() as inside:
        await unanswered(inside, sent)
        assert refusals(inside) == [refusal]
        assert isinstance(await (await Device(inside.site).send(inside.site.config())).answer(), ConfigMessage)


async def test_data_of_one_device_under_the_name_of_another_goes_nowhere() -> None:
    async with real() as inside:
        await inside.alert(Reason.PASS)
        mine = inside.site.data(OTHER)
        stolen_name = mine[:75] + b"\x05cam-1" + mine[81:]
        await unanswered(inside, stolen_name)
        assert refusals(inside) == [Refusal.HMAC]
        assert await Device(inside.site).told(mine) is Acceptance.REJECT
        assert inside.site.app.got == []


async def test_a_connection_speaks_for_one_device() -> None:
    async with real() as inside:
        await inside.alert(Reason.PASS)
        device = Device(inside.site)
        assert await device.told(inside.site.data()) is Acceptance.ACCEPT
        await device.send(inside.site.data(OTHER))
        with suppress(ConnectionResetError):
            assert await device.ended() == b""
        assert refusals(inside) == [Refusal.DEVICE]


async def test_replayed_data_is_refused_on_any_connection_and_after_a_restart() -> None:
    clock, disk = ManualClock(), Disk()
    async with real(clock, disk) as inside:
        await inside.alert(Reason.PASS)
        frames = [inside.site.data() for _ in range(3)]
        live = Device(inside.site)
        for frame in frames:
            assert await live.told(frame) is Acceptance.ACCEPT
        for frame in frames:
            assert await live.told(frame) is Acceptance.REJECT
            assert await Device(inside.site).told(frame) is Acceptance.REJECT
        await until(lambda: len(inside.site.app.got) == 3)
        assert refusals(inside) == [Refusal.REPLAY] * 6
    async with real(clock, disk) as again:
        again.later(30)
        for frame in frames:
            assert await Device(again.site).told(frame) is Acceptance.REJECT
        assert again.site.app.got == []


async def test_data_that_the_start_alone_refuses_is_refused_slowly_and_nobody_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A prover attests after five refusals, without a pause: each start would be a storm at the verifier."""
    monkeypatch.setattr("gateway.relying.door.HELD_SECONDS", 0.4)
    async with real() as inside:
        site, clock = inside.site, inside.site.clock
        await inside.alert(Reason.PASS)
        taken = site.data()
        live = Device(site)
        assert await live.told(taken) is Acceptance.ACCEPT
        clock.jump(int(clock.wall) - clock.wall - AHEAD - 1)  # the first second of this start
        early = Device(site)
        await early.send(site.data() + site.data())
        assert await live.told(taken) is Acceptance.REJECT  # a replay is refused at once
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(early.frame(), 0.2)
        assert await early.result() is Acceptance.REJECT
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(early.frame(), 0.2)
        assert await early.result() is Acceptance.REJECT
        clock.jump(AHEAD + 1)
        assert await early.told(site.data()) is Acceptance.ACCEPT


async def test_a_passport_from_before_the_failure_readmits_nobody() -> None:
    async with real() as inside:
        site = inside.site
        await inside.alert(Reason.PASS)
        passport = site.passport()
        assert isinstance(await (await Device(site).send(site.check(passport))).answer(), Permission)
        inside.later()
        await inside.alert(Reason.FAILED_ATTEST)
        for _ in range(2):
            await unanswered(inside, site.check(passport))
            assert await data(inside) is Acceptance.REJECT
        assert inside.standing() is Standing.DISTRUSTED
        assert site.app.got == []


async def test_a_fresh_passport_from_a_verifier_that_passes_failures_through_readmits_nobody() -> None:
    """As shipped, the verifier grants a passport right after the alert that tells of the failure."""
    async with real() as inside:
        site = inside.site
        await inside.alert(Reason.PASS)
        inside.later()
        await inside.alert(Reason.FAILED_ATTEST)
        inside.later()
        fresh = site.passport()  # genuine, issued after the failure, for a day
        await unanswered(inside, site.check(fresh))
        assert await data(inside) is Acceptance.REJECT
        assert inside.standing() is Standing.DISTRUSTED
        assert site.app.got == []


async def test_a_restart_forgets_neither_failure_nor_admission_and_needs_no_passport() -> None:
    clock, disk = ManualClock(), Disk()
    async with real(clock, disk) as inside:
        await inside.alert(Reason.PASS)
        await inside.alert(Reason.FAILED_ATTEST, "cam-2")
        old = inside.site.passport(OTHER)
    async with real(clock, disk) as again:
        # The fake path gate kept nothing: as after a reboot everybody starts lapsed, and the failure is known.
        assert again.standing("cam-1") is Standing.LAPSED
        assert again.standing("cam-2") is Standing.DISTRUSTED
        await unanswered(again, again.site.check(old, OTHER))
        assert await Device(again.site).told(again.site.data(OTHER)) is Acceptance.REJECT
        await again.alert(Reason.PASS)
        assert await data(again) is Acceptance.ACCEPT


async def test_an_operators_hold_ends_the_open_connection_at_once() -> None:
    async with real() as inside:
        await inside.alert(Reason.PASS)
        live = Device(inside.site)
        assert await live.told(inside.site.data()) is Acceptance.ACCEPT
        inside.world.devices.hold(CAM, "anna", "trial")
        assert inside.site.door.open_connections == 0
        with pytest.raises(ConnectionResetError):
            await live.ended()
        assert await data(inside) is Acceptance.REJECT


async def test_nothing_is_carried_before_the_pass_is_durable() -> None:
    async with real() as inside:
        inside.world.journal.delay()
        await inside.alert(Reason.PASS)
        assert inside.standing() is Standing.TRUSTED
        assert await data(inside) is Acceptance.REJECT
        waiting = await Device(inside.site).send(inside.site.check())
        await asyncio.sleep(0)
        inside.world.journal.release()
        await inside.world.settle()
        assert isinstance(await waiting.answer(), Permission)
        assert await data(inside) is Acceptance.ACCEPT


async def test_two_hundred_idle_connections_disturb_nobody() -> None:
    async with real() as inside:
        await inside.alert(Reason.PASS)
        idle: list[Device] = []
        while len(idle) < 200:
            idle += [Device(inside.site) for _ in range(40)]
            await until(lambda: inside.site.door.open_connections >= len(idle))  # noqa: B023
        for _ in range(20):
            assert await data(inside) is Acceptance.ACCEPT
