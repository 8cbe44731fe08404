"""What a cut does to connections and to what still waits in them; who is slow hurts nobody else."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from gateway.core.errors import Refusal
from gateway.relying import End
from gateway.sediment.messages import Acceptance, ConfigMessage, Dummy
from tests.relying.site import CAM, OTHER, Device, Peer, Site, listening, relying, settle, until


async def reset_of(device: Device) -> None:
    """The connection was reset, not closed in order."""
    with pytest.raises(ConnectionResetError):
        await device.ended()


@pytest.mark.parametrize("kept", [False, True])
async def test_a_cut_resets_the_open_connection_before_it_returns(kept: bool) -> None:
    async with relying(kept=kept) as site:
        site.standings.admit(CAM)
        device, other = Device(site), Device(site)
        assert await device.told(site.data()) is Acceptance.ACCEPT
        site.standings.admit(OTHER)
        assert await other.told(site.data(OTHER)) is Acceptance.ACCEPT
        site.standings.cut(CAM)
        assert site.door.open_connections == 1
        assert site.door.ends == {End.CUT: 1}
        await reset_of(device)
        assert await other.told(site.data(OTHER)) is Acceptance.ACCEPT


async def test_what_waits_at_the_moment_of_the_cut_never_arrives() -> None:
    """Messages behind one that the app server does not take: nothing of them is sent after the cut."""
    async with relying(Peer(reading=False), kept=True, onward_seconds=50.0) as site:
        site.standings.admit(CAM)
        device = Device(site)
        sent = 0
        while site.door.unsent == 0:  # until the kernel's buffers on the way are full
            frame = site.data(size=30_000)
            await device.send(frame)
            sent += len(frame)
            await settle()
        with suppress(BlockingIOError):
            device.sock.send(site.data(size=30_000))
        await settle()
        waiting = site.door.unsent
        assert waiting
        site.standings.cut(CAM)
        assert site.door.open_connections == 0
        site.app.reading = True
        await until(lambda: site.app.ended == 1)
        assert len(site.app.bytes) <= sent - waiting


async def test_data_on_its_way_to_an_app_server_that_does_not_answer_yet_is_stopped_by_the_cut() -> None:
    with socket.socket() as full:
        # A listener whose queue is full: connections to it stay half open.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        async with relying(onward=full.getsockname(), onward_seconds=50.0) as site:
            site.standings.admit(CAM)
            device = await Device(site).send(site.data())
            await until(lambda: site.door.unsent > 0)
            site.standings.cut(CAM)
            assert site.door.unsent == 0
            await reset_of(device)
            assert (site.door.taken, site.door.not_taken) == (0, 0)
        for filler in fillers:
            filler.close()


async def test_after_a_cut_the_device_may_still_ask_where_to_attest() -> None:
    async with relying() as site:
        site.standings.admit(CAM)
        first = Device(site)
        assert await first.told(site.data()) is Acceptance.ACCEPT
        site.standings.cut(CAM)
        again = await Device(site).send(site.config())
        assert isinstance(await again.answer(), ConfigMessage)
        assert await again.told(site.data()) is Acceptance.REJECT
        site.standings.admit(CAM)
        assert await again.told(site.data()) is Acceptance.ACCEPT


async def test_a_connection_that_only_attests_survives_a_change_of_standing() -> None:
    async with relying() as site:
        device = await Device(site).send(site.config())
        await device.answer()
        site.standings.cut(CAM)
        assert isinstance(await (await device.send(site.config())).answer(), ConfigMessage)


async def test_a_slow_app_server_costs_its_own_device_an_answer_and_others_nothing() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with relying(onward=full.getsockname(), onward_seconds=1.0) as site:
            site.standings.admit(CAM)
            slow = await Device(site).send(site.data())
            await until(lambda: site.door.unsent > 0)
            # While it waits, everybody else is served.
            assert isinstance(await (await Device(site).send(site.config())).answer(), ConfigMessage)
            assert site.door.unsent > 0
            assert await slow.result() is Acceptance.NO_COMM
        for filler in fillers:
            filler.close()


async def test_a_device_that_does_not_read_its_answers_is_held_back_and_ended() -> None:
    async with relying(idle_seconds=1.0, settings=b"x" * 20_000 + b"\0") as site:
        deaf = Device(site)
        deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        ask = site.config()
        with suppress(BlockingIOError):
            for _ in range(20_000):
                deaf.sock.send(ask)
        await settle()
        other = await Device(site).send(site.config())
        assert isinstance(await other.answer(), ConfigMessage)
        await until(lambda: site.door.ends[End.SLOW] == 1)


async def test_a_message_that_does_not_get_whole_in_time_is_refused() -> None:
    async with relying(frame_seconds=0.3) as site:
        device = await Device(site).send(site.config()[:-1])
        with suppress(ConnectionResetError):
            assert await device.ended() == b""
        assert site.admission.reasons == [Refusal.TIMEOUT]


async def test_silence_is_ended_without_a_word() -> None:
    async with relying(idle_seconds=0.3) as site:
        device = Device(site)
        assert await device.ended() == b""
        assert site.admission.refusals == []
        busy = await Device(site).send(site.config())
        await busy.answer()
        assert await busy.ended() == b""


async def test_limits_of_connections() -> None:
    async with relying(connections=3, connections_per_peer=2) as site:
        held = [Device(site), Device(site)]
        await until(lambda: site.door.open_connections == 2)
        with suppress(ConnectionResetError):
            assert await Device(site).ended() == b""
        third = await Device(site, "127.0.0.3").send(site.config())
        assert isinstance(await third.answer(), ConfigMessage)
        with suppress(ConnectionResetError):
            assert await Device(site, "127.0.0.4").ended() == b""
        assert site.admission.reasons == [Refusal.LIMIT, Refusal.LIMIT]
        held[0].close()
        await until(lambda: site.door.open_connections == 2)
        again = await Device(site).send(site.config())
        assert isinstance(await again.answer(), ConfigMessage)


async def test_hundreds_of_connections_are_sockets_and_neither_threads_nor_tasks() -> None:
    import threading

    async with relying() as site:
        before = threading.active_count()
        devices: list[Device] = []
        while len(devices) < 400:  # in turns: the kernel keeps only so many that nobody has accepted
            devices += [Device(site, f"127.0.1.{number + 1}") for number in range(40)]
            await until(lambda: site.door.open_connections == len(devices))  # noqa: B023
        assert threading.active_count() == before
        site.standings.admit(CAM)
        for device in devices[::40]:
            assert await device.told(site.data()) is Acceptance.ACCEPT
        assert len(asyncio.all_tasks()) < 30  # not one for each connection either


async def test_at_the_end_everything_is_reset_and_nothing_is_left() -> None:
    async with relying(kept=True) as site:
        site.standings.admit(CAM)
        device, idle = Device(site), Device(site)
        assert await device.told(site.data()) is Acceptance.ACCEPT
        await until(lambda: site.door.open_connections == 2)
        site.door._failure.cancel()
        await reset_of(device)
        await reset_of(idle)
        assert site.door.ends == {End.STOPPED: 2}
        assert site.door.open_connections == 0


# --- beside SEDIMENT's relying party ------------------------------------------------------------------------------


def answering(site_of: list[Site]) -> Peer:
    """SEDIMENT's relying party: answers every message with a DUMMY of cam-1."""
    return Peer(answer=lambda data: site_of[0].dummy())


async def test_beside_everything_of_admitted_devices_passes_unchanged_both_ways() -> None:
    box: list[Site] = []
    async with listening(answering(box)) as party, relying(beside=True, onward=party.where) as site:
        box.append(site)
        site.standings.admit(CAM)
        device = Device(site)
        sent = [site.config(), site.request(), site.check(), site.data(), site.data()]
        for frame in sent:
            assert isinstance(await (await device.send(frame)).answer(), Dummy)
        assert party.bytes == b"".join(sent)
        assert len(party.got) == 1  # one connection for one connection
        last = site.key_change()
        await device.send(last)
        await until(lambda: party.bytes.endswith(last))
        assert (site.door.taken, site.door.not_taken) == (3, 0)
        assert site.door.copies() == {"acknowledged": 0, "failed": 0, "skipped": 0}


async def test_beside_attestation_of_others_passes_and_their_data_does_not() -> None:
    box: list[Site] = []
    async with listening(answering(box)) as party, relying(beside=True, onward=party.where) as site:
        box.append(site)
        device = Device(site)
        sent = [site.config(), site.request(), site.check()]
        for frame in sent:
            assert isinstance(await (await device.send(frame)).answer(), Dummy)
        assert await device.told(site.data()) is Acceptance.REJECT
        assert isinstance(await (await device.send(site.config())).answer(), Dummy)
        await device.send(site.key_change())
        with suppress(ConnectionResetError):
            assert await device.ended() == b""
        assert party.bytes.startswith(b"".join(sent))
        assert len(party.bytes) == sum(map(len, sent)) + len(sent[0])


async def test_beside_a_cut_ends_both_connections_at_once() -> None:
    box: list[Site] = []
    async with listening(answering(box)) as party, relying(beside=True, onward=party.where) as site:
        box.append(site)
        site.standings.admit(CAM)
        device = Device(site)
        await (await device.send(site.data())).answer()
        site.standings.cut(CAM)
        assert site.door.open_connections == 0
        await reset_of(device)
        await until(lambda: party.ended == 1)


async def test_beside_alerts_are_acted_on_and_passed_on_and_its_loss_does_not_lose_ours() -> None:
    from tests.relying.site import VERIFIER
    from tests.sediment.recorded import make_alert

    async with relying(beside=True, onward=("127.0.0.1", 1)) as site:
        frame = make_alert(issued_at=site.stamp())
        await Device(site, VERIFIER).send(frame)
        await until(lambda: bool(site.admission.envelopes))
        assert [envelope.data for envelope in site.admission.envelopes] == site.passed_on == [frame]
        # SEDIMENT's relying party is away: a device is not answered, as if it were alone.
        device = await Device(site).send(site.config())
        with suppress(ConnectionResetError):
            assert await device.ended() == b""


async def test_beside_the_party_closing_closes_the_device_once_it_has_everything() -> None:
    box: list[Site] = []
    party = answering(box)
    party.closing = True
    async with listening(party), relying(beside=True, onward=party.where) as site:
        box.append(site)
        device = await Device(site).send(site.config())
        answer = await device.ended()
        assert len(answer) == int.from_bytes(answer[:2], "big")


async def test_beside_forged_and_replayed_data_does_not_pass() -> None:
    box: list[Site] = []
    async with listening(answering(box)) as party, relying(beside=True, onward=party.where) as site:
        box.append(site)
        site.standings.admit(CAM)
        frame = site.data()
        await (await Device(site).send(frame)).answer()
        assert await Device(site).told(frame) is Acceptance.REJECT
        forged = bytearray(site.data())
        forged[-1] ^= 1
        with suppress(ConnectionResetError):
            assert await (await Device(site).send(bytes(forged))).ended() == b""
        assert party.bytes == frame
        assert site.admission.reasons == [Refusal.REPLAY, Refusal.HMAC]
