"""Adding up refusals: by prefix, reason and window, in bounded memory."""

from __future__ import annotations

import pytest

from gateway.core.errors import Refusal
from gateway.core.model import Rejected
from gateway.journal import refusals
from gateway.journal.refusals import RefusalRow, Tally, peer_prefix
from tests.journal import samples


def rejected(peer: str, at: float = samples.WALL, refusal: Refusal = Refusal.HMAC) -> Rejected:
    return Rejected(samples.SOURCE, refusal, "detail", peer, at)


@pytest.mark.parametrize(
    ("peer", "prefix"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_prefix_is_what_one_sender_can_vary(peer: str, prefix: str) -> None:
    assert peer_prefix(peer) == prefix


def test_one_row_per_prefix_reason_and_window() -> None:
    tally = Tally()
    assert not tally
    for fact in (
        rejected("192.0.2.1", 104.0),
        rejected("192.0.2.2", 109.9),
        rejected("192.0.2.1", 101.0),
        rejected("192.0.2.1", 110.0),
        rejected("192.0.2.1", 105.0, Refusal.FRAMING),
        rejected("192.0.3.1", 105.0),
    ):
        tally.add(fact)
    assert tally
    assert tally.count == 6
    assert tally.rows() == [
        RefusalRow(100, "192.0.2.0/24", "framing", "verifier", 1, 105.0, 105.0, "detail"),
        RefusalRow(100, "192.0.2.0/24", "hmac", "verifier", 3, 101.0, 109.9, "detail"),
        RefusalRow(100, "192.0.3.0/24", "hmac", "verifier", 1, 105.0, 105.0, "detail"),
        RefusalRow(110, "192.0.2.0/24", "hmac", "verifier", 1, 110.0, 110.0, "detail"),
    ]


def test_the_sample_names_the_first_claimed_device_cut_and_printable() -> None:
    tally = Tally()
    for device in ("cam-1", "cam-2"):
        tally.add(rejected("192.0.2.1", 101.0)._replace(device=device))
    assert [row.sample for row in tally.rows()] == ["detail (claimed cam-1)"]
    hostile = Tally()
    hostile.add(rejected("192.0.2.1")._replace(device="\x1b[2J\n" + "x" * 1_000, detail="y" * 1_000))
    (row,) = hostile.rows()
    assert row.sample.isprintable()
    assert row.sample.startswith("y" * refusals.SAMPLE + r" (claimed \x1b[2J\x0ax")
    assert len(row.sample) < refusals.SAMPLE + 4 * refusals.CLAIMED


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MOST_WAITING", 10)
    tally = Tally()
    for number in range(30):
        tally.add(rejected(f"10.0.{number}.1"))
    tally.add(rejected("10.0.3.9"))
    tally.add(rejected("10.0.99.1", samples.WALL + 500, Refusal.FRAMING))
    by_peer = {(row.peer, row.refusal): row.times for row in tally.rows()}
    assert len(by_peer) == 12
    assert by_peer[refusals.OTHERS, "hmac"] == 20
    assert by_peer[refusals.OTHERS, "framing"] == 1
    assert by_peer["10.0.3.0/24", "hmac"] == 2
    assert sum(by_peer.values()) == tally.count == 32


def test_the_sample_is_bounded_and_can_be_written() -> None:
    tally = Tally()
    tally.add(Rejected(samples.SOURCE, Refusal.HMAC, "\ud800" * 500, "p\udc00", 1.0))
    (row,) = tally.rows()
    row.sample.encode()
    row.peer.encode()
    assert len(row.sample) <= 6 * refusals.SAMPLE
