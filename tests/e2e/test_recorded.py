"""The recorded messages, byte for byte through the real door, authenticator, devices and journal, at their time.

Only the clock and the path gate are fakes: the clock stands at the moment at which each message was captured.
What must come out is worked out here from the recorded fields alone, not by asking our lifecycle.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections import Counter
from pathlib import Path

import pytest

from gateway.core.errors import Refusal
from tests.e2e.inside import BEFORE, MAX_AGE, VERIFIER, Gate, alerts, gate, replay
from tests.fakes.clock import ManualClock
from tests.sediment.recorded import messages


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=BEFORE)


# --- the recordings ----------------------------------------------------------------------------------------------


async def test_recorded_alerts_give_the_standings_that_the_design_demands(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with gate(tmp_path / "journal.db", clock) as inside:
        expected = await replay(inside)
        now = clock.wall
        final = {name: one.standing(now) for name, one in expected.items() if one.standing(now) != "unknown"}
        assert final == {
            "Ubuntu-001": "distrusted",  # FAILED_AUTH, then a stale pass that must not count
            "Ubuntu-002": "trusted",
            "Ubuntu-003": "trusted",
            "Ubuntu-004": "distrusted",  # FAILED_ATTEST three times, then USER_REJECT
            "Ubuntu-005": "trusted",
        }
        for name, record in inside.records().items():
            assert record.deadline == expected[name].deadline(now), name
            assert record.newest == max(expected[name].passed, expected[name].failed), name
            assert record.epoch == expected[name].failed, name
            assert record.debt == (2 if expected[name].failed else 0), name
        rows = await inside.facts()
        verdicts = [row for row in rows if row["kind"] == "transition"]
        refused = await inside.rejected()
        assert len(verdicts) + sum(refused.values()) == len(alerts()), "each is a row, or counted as refused"
        assert refused == {"device": 3, "freshness": 1}
        # silence: whoever does not attest again lapses at its deadline, and only that
        trusted = {name for name, standing in final.items() if standing == "trusted"}
        for end in sorted({expected[name].passed + MAX_AGE for name in trusted}):
            for at in (end - 0.001, end):
                inside.set_clock(at)
                assert inside.standings() == {name: one.standing(at) for name, one in expected.items()}
        await inside.settled()
        assert inside.admitted() == set()
        assert await inside.journal.history.verify_chain() == []


@pytest.mark.parametrize("order", ["as recorded", "backwards", "shuffled"])
async def test_a_second_replay_changes_nothing(tmp_path: Path, clock: ManualClock, order: str) -> None:
    async with gate(tmp_path / "journal.db", clock) as inside:
        await replay(inside)
        standings, records, admitted = inside.standings(), inside.records(), inside.admitted()
        before, refused = await inside.facts(), await inside.rejected()
        again = alerts()
        if order == "backwards":
            again.reverse()
        elif order == "shuffled":
            random.Random(20_261_121).shuffle(again)
        # those of the newest second are still fresh: what has no effect may be recorded once more
        noted = {"INIT", "EXPIRATION", "TIME_OUT", "SQN_OUT_OF_SYNC"}
        for alert in again:
            await inside.feed(alert.frame)
            assert inside.records() == records, alert.name
        assert (inside.standings(), inside.admitted()) == (standings, admitted)
        new = (await inside.facts())[len(before) :]
        assert {(row["kind"], row.get("effect") or "refused") for row in new} <= {
            ("refusal", "refused"),
            ("transition", "recorded"),
        }
        recorded = [row for row in new if row["kind"] == "transition"]
        assert len(recorded) == sum(alert.fields["reason"] in noted for alert in again)
        more = await inside.rejected() - refused
        assert sum(more.values()) + len(recorded) == len(again)
        assert set(more) == {"device", "freshness", "replay", "order"}


async def test_an_alert_sent_again_while_it_is_fresh_counts_once(tmp_path: Path, clock: ManualClock) -> None:
    """Each alert twice in its own second, and the one before it of the same device once more."""
    async with gate(tmp_path / "journal.db", clock) as inside:
        earlier: dict[str, bytes] = {}
        for alert in alerts():
            inside.set_clock(float(alert.about["captured_at"]))
            await inside.feed(alert.frame)
            records, admitted = inside.records(), inside.admitted()
            for again in (alert.frame, earlier.get(alert.about["device_id"], alert.frame)):
                await inside.feed(again)
                assert (inside.records(), inside.admitted()) == (records, admitted), alert.name
            earlier[alert.about["device_id"]] = alert.frame
        rejected = await inside.rejected()
        assert min(rejected["replay"], rejected["order"]) > 30
        effects = {row["effect"] for row in await inside.facts() if row["kind"] == "transition"}
        assert effects == {"raised", "extended", "lowered", "recorded"}, (
            "authentication refused them, nothing later"
        )


async def test_a_replay_after_a_restart_is_refused_by_what_the_journal_kept(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "journal.db"
    async with gate(path, clock) as inside:
        await replay(inside)
        records = inside.records()
    async with gate(path, clock) as inside:
        # a path gate in memory died with the process: nobody is admitted, nothing else is forgotten
        assert inside.admitted() == set()
        kept = inside.records()
        for name, record in records.items():
            marks = ("newest", "nonces", "epoch", "debt", "paid_at")
            assert [getattr(kept[name], mark) for mark in marks] == [getattr(record, mark) for mark in marks]
        for alert in alerts():
            await inside.feed(alert.frame)
        assert inside.records() == kept
        assert inside.admitted() == set()


# --- input that must be refused ----------------------------------------------------------------------------------


#: By which named reason each broken or forged message is refused.
REFUSED_BY = {
    "address-changed": Refusal.SIGNATURE,
    "bad-hmac": Refusal.HMAC,
    "bad-signature": Refusal.SIGNATURE,
    "device-changed": Refusal.SIGNATURE,
    "digest-length-0": Refusal.FRAMING,
    "message-id-99": Refusal.KIND,
    "nonce-length-65535": Refusal.FRAMING,
    "not-sediment": Refusal.FRAMING,
    "reason-changed": Refusal.SIGNATURE,
    "size-max": Refusal.FRAMING,
    "size-zero": Refusal.FRAMING,
    "trailing-bytes": Refusal.LENGTHS,
    "truncated": Refusal.FRAMING,
    "zero-digest-known-device": Refusal.HMAC,
}


@pytest.mark.parametrize("at", ["when captured", "when issued"])
async def test_every_broken_or_forged_message_is_refused_counted_and_explained(
    tmp_path: Path, clock: ManualClock, at: str
) -> None:
    broken = messages("negative")
    assert {message.name for message in broken} == set(REFUSED_BY)
    async with gate(tmp_path / "journal.db", clock) as inside:
        if at == "when captured":
            await replay(inside)
        else:
            # fresh, and before anything was accepted: no order or freshness stands before the other steps
            inside.set_clock(1_795_283_424.5)
        for message in broken:
            if at == "when captured":
                inside.set_clock(max(clock.wall, float(message.about["captured_at"])))
                await inside.settled()
            before, refused = inside.records(), await inside.rejected()
            await inside.feed(message.frame)
            assert await inside.rejected() - refused == {REFUSED_BY[message.name].value: 1}, message.name
            assert inside.records() == before, message.name
        told = await explained(inside)
        for name, refusal in REFUSED_BY.items():
            assert told[refusal.value], f"{name} is not explained"
        assert sum(sum(rows.values()) for rows in told.values()) >= len(broken)
        await still_open(inside)


async def explained(inside: Gate) -> dict[str, Counter[str]]:
    """What the journal tells of refusals: reason, to its explanations and how often. Waits for aggregates."""
    told: dict[str, Counter[str]] = {refusal.value: Counter() for refusal in Refusal}
    wanted = sum((await inside.rejected()).values())
    async with asyncio.timeout(60):
        while sum(sum(each.values()) for each in told.values()) < wanted:
            await asyncio.sleep(0.05)
            told = {refusal.value: Counter() for refusal in Refusal}
            for row in await inside.journal.history.refusals(1_000):
                told[row["refusal"]][row["detail"]] += row["times"]
            for row in await inside.facts():
                if row["kind"] == "refusal":
                    told[row["refusal"]][row["detail"]] += 1
    return told


async def still_open(inside: Gate) -> None:
    """The door takes the next good alert."""
    alert = next(alert for alert in alerts() if alert.fields["reason"] == "PASS")
    known = alert.about["device_id"]
    if clock_of(inside) <= alert.about["captured_at"] + 100:
        await inside.feed(alert.frame)
        assert inside.standings()[known] == "trusted"
    else:
        before = await inside.rejected()
        await inside.feed(alert.frame)
        assert await inside.rejected() - before == {"freshness": 1}


def clock_of(inside: Gate) -> float:
    return inside.clock.now().wall


async def test_all_of_them_at_once_in_one_stream_and_in_pieces(tmp_path: Path, clock: ManualClock) -> None:
    """Broken messages on many connections at once, each cut into pieces, harm no other and no good one."""
    async with gate(tmp_path / "journal.db", clock) as inside:
        inside.set_clock(1_795_283_424.5)
        frames = [message.frame for message in messages("negative")]

        async def dribble(frame: bytes) -> None:
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
                connection.setblocking(False)
                connection.bind((VERIFIER, 0))
                await loop.sock_connect(connection, inside.door.addresses[0])
                for start in range(0, len(frame), 50):
                    try:
                        await loop.sock_sendall(connection, frame[start : start + 50])
                    except (ConnectionResetError, BrokenPipeError):
                        return  # refused before it was whole
                    await asyncio.sleep(0)

        await asyncio.gather(*map(dribble, itertools.chain(frames, frames)))
        inside.handled += 2 * len(frames)
        async with asyncio.timeout(60):
            while inside.seen.judged < inside.handled:
                await asyncio.sleep(0.001)
        assert sum((await inside.rejected()).values()) == 2 * len(frames)
        assert set(inside.standings().values()) == {"unknown"}
        await still_open(inside)


async def test_requests_for_anybody_touch_nothing(tmp_path: Path, clock: ManualClock) -> None:
    requested = messages("requested")
    async with gate(tmp_path / "journal.db", clock) as inside:
        for alert in alerts():
            if alert.about["captured_at"] < requested[0].about["captured_at"]:
                inside.set_clock(float(alert.about["captured_at"]))
                await inside.feed(alert.frame)
        records, admitted = inside.records(), inside.admitted()
        refused = await inside.rejected()
        for message in requested:
            inside.set_clock(float(message.about["captured_at"]))
            await inside.feed(message.frame)
            assert (inside.records(), inside.admitted()) == (records, admitted), message.name
        known = [m for m in requested if m.about["device_id"] in inside.standings()]
        assert len(known) == 7
        assert await inside.rejected() - refused == {"device": 3}
        rows = [row for row in await inside.facts() if row.get("event") == "requested"]
        assert len(rows) >= len(known)
        assert all(row["effect"] == "recorded" for row in rows)
        told = (await explained(inside))["device"]
        assert sum(told.values()) == 3


async def test_synthetic_reasons_do_what_the_table_says_in_any_order(tmp_path: Path, clock: ManualClock) -> None:
    """One second, every order of a failure and what only notes something: the failure decides."""
    of = {message.fields["reason"]: message for message in messages("synthetic") if "stale" not in message.name}
    stale = next(message for message in messages("synthetic") if "stale" in message.name)
    second = 1_795_284_023
    for number, first in enumerate(("EXPIRATION", "FAILED_AUTH")):
        here = replace_clock(clock, second + 0.5)
        async with gate(tmp_path / f"{number}.db", here) as inside:
            await inside.feed(stale.frame)
            assert await inside.rejected() == {"freshness": 1}
            assert set(inside.standings().values()) == {"unknown"}
            reasons = [first, *(reason for reason in of if reason != first)]
            for reason in reasons:
                await inside.feed(of[reason].frame)
            found = {name: standing for name, standing in inside.standings().items() if standing != "unknown"}
            assert found == {"Ubuntu-001": "distrusted", "Ubuntu-004": "distrusted"}
            await inside.feed(stale.frame)
            assert inside.standings()["Ubuntu-001"] == "distrusted"
            rows = [row for row in await inside.facts() if row["kind"] == "transition"]
            effects = Counter(row["effect"] for row in rows)
            assert effects == {"recorded": 4, "lowered": 2}


def replace_clock(clock: ManualClock, wall: float) -> ManualClock:
    return ManualClock(wall=wall, boot=clock.boot)
