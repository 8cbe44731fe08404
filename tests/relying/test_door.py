"""In the place of SEDIMENT's relying party: every message, from an admitted device and from others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from gateway.core.errors import Refusal
from gateway.core.model import Envelope, SourceName
from gateway.sediment.messages import (
    Acceptance,
    Admittance,
    Cause,
    ConfigMessage,
    Dummy,
    Passport,
    PassportResponse,
    Permission,
)
from gateway.sediment.relying import Case
from gateway.sediment.wire import MessageId
from tests.relying.site import CAM, OTHER, TEXT, VERIFIER, Device, Peer, Site, relying, settle, sign, until
from tests.sediment.recorded import make_alert


async def closed_without_answer(device: Device) -> None:
    with suppress(ConnectionResetError):
        assert await device.ended() == b""


async def test_settings_are_handed_out() -> None:
    async with relying() as site:
        answer = await (await Device(site).send(site.config())).answer()
    assert isinstance(answer, ConfigMessage)
    assert answer.text == TEXT


async def test_where_none_are_handed_out_a_dummy_is_answered() -> None:
    async with relying(settings=None) as site:
        assert isinstance(await (await Device(site).send(site.config())).answer(), Dummy)


async def test_a_device_is_told_its_verifier_once_the_verifier_has_a_copy() -> None:
    held = asyncio.Event()
    verifier = Peer(answer=lambda data: b"ack" if held.is_set() else b"")
    async with relying(verifier=verifier) as site:
        device = await Device(site).send(site.request())
        await until(lambda: bool(verifier.bytes))
        await settle()
        copy = verifier.bytes
        assert site.door.copies()["acknowledged"] == 0
        held.set()
        verifier.answer = lambda data: b"ack"
        # The first connection was read before; a second device's copy is acknowledged at once.
        other = await Device(site).send(site.request(OTHER))
        answer = await other.answer()
        assert isinstance(answer, PassportResponse)
        assert answer.verifier.address == b"127.0.0.2"
        assert answer.verifier.port == 8100
        # The first waits no longer than the copy may take.
        late = await device.frame()
        assert late == copy
    assert site.door.copies() == {"acknowledged": 1, "failed": 1, "skipped": 0}


async def test_a_verifier_that_is_away_is_no_reason_to_leave_a_device_without_answer() -> None:
    async with relying(copy_to=("127.0.0.1", 1)) as site:
        assert isinstance(await (await Device(site).send(site.request())).answer(), PassportResponse)
        assert site.door.copies()["failed"] == 1


async def test_data_of_an_admitted_device_arrives_unchanged_and_is_accepted() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        sent = [site.data() for _ in range(3)]
        for frame in sent:
            assert await Device(site).told(frame) is Acceptance.ACCEPT
        await until(lambda: len(site.app.bytes) == sum(map(len, sent)))
        assert [bytes(one) for one in site.app.got] == sent  # a connection each, as SEDIMENT does
        assert (site.door.taken, site.door.not_taken) == (3, 0)


async def test_one_connection_may_bring_message_after_message() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        device = Device(site)
        for _ in range(3):
            assert await device.told(site.data()) is Acceptance.ACCEPT
        await device.send(site.data() + site.data() + site.config())
        assert await device.result() is Acceptance.ACCEPT
        assert await device.result() is Acceptance.ACCEPT
        assert isinstance(await device.answer(), ConfigMessage)
        assert site.door.open_connections == 1


async def test_bytes_one_by_one_are_the_same_message() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        device = Device(site)
        for byte in site.data():
            await device.send(bytes((byte,)))
        assert await device.result() is Acceptance.ACCEPT


async def test_data_of_a_device_that_is_not_admitted_is_rejected_and_goes_nowhere() -> None:
    async with relying() as site:
        device = Device(site)
        assert await device.told(site.data()) is Acceptance.REJECT
        site.standings.admit(CAM, service="another")
        assert await device.told(site.data()) is Acceptance.REJECT
        site.standings.admit(CAM, until=site.clock.boot)
        assert await device.told(site.data()) is Acceptance.REJECT
        await settle()
        assert site.app.got == []
        assert site.door.messages[MessageId.DATA, Case.SHUT] == 3


async def test_an_admission_that_ended_by_itself_carries_nothing_more() -> None:
    async with relying(kept=True) as site:
        site.standings.admit(CAM, until=site.clock.boot + 5)
        device = Device(site)
        assert await device.told(site.data()) is Acceptance.ACCEPT
        await until(lambda: bool(site.app.bytes))
        arrived = site.app.bytes
        site.clock.advance(5.0)
        assert await device.told(site.data()) is Acceptance.REJECT
        await settle()
        assert site.app.bytes == arrived


async def test_who_is_to_attest_again_is_told_so_once() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        site.standings.wishes.add(CAM)
        device = Device(site)
        assert await device.told(site.data()) is Acceptance.ATTEST
        assert site.standings.told == [CAM]
        assert await device.told(site.data()) is Acceptance.ACCEPT
        await until(lambda: len(site.app.got) == 1)


async def test_a_device_whose_profile_is_slowed_is_carried_no_quicker() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        site.standings.left[CAM] = 2
        device = Device(site)
        frames = [site.data() for _ in range(3)]
        assert [await device.told(frame) for frame in frames] == [
            Acceptance.ACCEPT,
            Acceptance.ACCEPT,
            Acceptance.REJECT,
        ]
        site.standings.left[CAM] = 1
        assert await device.told(frames[0]) is Acceptance.REJECT  # a replay costs the device nothing
        assert await device.told(frames[2]) is Acceptance.ACCEPT  # what was not carried may come again
        await until(lambda: len(site.app.got) == 3)


async def test_an_app_server_that_is_away_is_no_comm() -> None:
    async with relying(onward=("127.0.0.1", 1)) as site:
        site.standings.admit(CAM)
        device = Device(site)
        assert await device.told(site.data()) is Acceptance.NO_COMM
        assert await device.told(site.data()) is Acceptance.NO_COMM
        assert (site.door.taken, site.door.not_taken) == (0, 2)


async def test_a_genuine_passport_of_an_admitted_device_is_permitted() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        answer = await (await Device(site).send(site.check())).answer()
    assert isinstance(answer, Permission)
    assert (answer.admittance, answer.cause) == (Admittance.GRANTED, Cause.INIT)
    assert (answer.relying_party.address, answer.relying_party.port) == (b"127.0.0.1", site.port)


async def test_a_passport_admits_nobody() -> None:
    async with relying(patience_seconds=0.1) as site:
        await closed_without_answer(await Device(site).send(site.check()))
        assert await Device(site).told(site.data()) is Acceptance.REJECT
        assert site.app.got == []
        assert site.admission.refusals == []


async def test_a_passport_that_is_earlier_than_its_alert_waits_for_it() -> None:
    async with relying(patience_seconds=50.0) as site:
        device = await Device(site).send(site.check())
        await until(lambda: site.door.open_connections == 1)
        await settle()
        site.standings.admit(CAM)
        assert isinstance(await device.answer(), Permission)
        assert await device.told(site.data()) is Acceptance.ACCEPT


def forged(site: Site) -> list[tuple[Passport, Refusal]]:
    genuine = site.passport()
    bent = bytes((genuine.signature[0] ^ 1,)) + genuine.signature[1:]
    old = site.stamp() - 1_000
    return [
        (genuine._replace(signature=bent), Refusal.SIGNATURE),
        (genuine._replace(expires=genuine.expires + 1), Refusal.SIGNATURE),
        (site.passport(OTHER), Refusal.DEVICE),
        (sign(genuine._replace(verifier_id=b"another")), Refusal.VERIFIER),
        (site.passport(issued=old, life=999), Refusal.FRESHNESS),
    ]


async def test_a_passport_that_is_not_genuine_is_not_answered_even_to_an_admitted_device() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        expected = forged(site)
        for passport, _ in expected:
            await closed_without_answer(await Device(site).send(site.check(passport)))
        assert site.admission.reasons == [refusal for _, refusal in expected]


async def test_keys_are_changed_by_admitted_devices_only_and_never_answered() -> None:
    async with relying() as site:
        await closed_without_answer(await Device(site).send(site.key_change()))
        assert site.app.got == []
        site.standings.admit(CAM)
        frame = site.key_change()
        await closed_without_answer(await Device(site).send(frame))
        await until(lambda: site.app.bytes == frame)


async def test_an_alert_of_the_verifier_becomes_an_envelope_and_is_not_answered() -> None:
    async with relying() as site:
        frame = make_alert(issued_at=site.stamp())
        verifier = await Device(site, VERIFIER).send(frame)
        await until(lambda: bool(site.admission.envelopes))
        (envelope,) = site.admission.envelopes
        assert envelope == Envelope(frame, SourceName("verifier"), VERIFIER, site.clock.now())
        verifier.close()
        await until(lambda: site.door.open_connections == 0)
    assert site.passed_on == []


async def test_an_alert_of_anybody_else_is_refused() -> None:
    async with relying() as site:
        await closed_without_answer(await Device(site).send(make_alert(issued_at=site.stamp())))
        assert site.admission.envelopes == []
        assert site.admission.reasons == [Refusal.PEER]


async def test_alerts_push_back_when_the_admission_is_full() -> None:
    async with relying() as site:
        site.admission.room = 1
        verifier = await Device(site, VERIFIER).send(make_alert(issued_at=site.stamp()))
        await until(lambda: site.admission.waiting == 1)
        late = await Device(site).send(site.config())
        await settle()
        assert site.door.open_connections == 1
        site.admission.make_room()
        assert isinstance(await late.answer(), ConfigMessage)
        verifier.close()


@pytest.mark.parametrize("kept", [False, True])
async def test_an_app_server_that_closes_after_each_message_loses_none(kept: bool) -> None:
    async with relying(Peer(closing=True), kept=kept) as site:
        site.standings.admit(CAM)
        device = Device(site)
        sent = []
        for number in range(5):
            sent.append(site.data())
            assert await device.told(sent[-1]) is Acceptance.ACCEPT
            await until(lambda: site.app.ended == number + 1)  # noqa: B023
            await settle()
        assert [bytes(one) for one in site.app.got] == sent


async def test_a_kept_connection_carries_message_after_message() -> None:
    async with relying(kept=True) as site:
        site.standings.admit(CAM)
        device = Device(site)
        sent = [site.data() for _ in range(4)]
        for frame in sent:
            assert await device.told(frame) is Acceptance.ACCEPT
        await until(lambda: len(site.app.bytes) == sum(map(len, sent)))
        assert len(site.app.got) == 1
        assert site.app.bytes == b"".join(sent)
        device.close()
        await until(lambda: site.app.ended == 1)
