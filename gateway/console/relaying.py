"""Metrics of the relying party's port, and of alerts that are passed on.

What lives here: their names and labels. What must not: counting, or a device in a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.metrics_core import Metric

from gateway.console.families import counters

#: What became of a frame for SEDIMENT's own relying party.
FORWARD_RESULTS = ("forwarded", "failed", "dropped")


class RelyingCounts(NamedTuple):
    """What the relying party's port has counted: messages by (kind, case), messages for the app server by result,
    ended connections by reason, copies to the verifier by result."""

    messages: Mapping[tuple[str, str], int]
    carried: Mapping[str, int]
    ends: Mapping[str, int]
    copies: Mapping[str, int]


def forwarded(counts: Mapping[str, int]) -> Metric:
    """``counts``: a number for each of ``FORWARD_RESULTS``."""
    return counters(
        "ragate_forwarded",
        "Alerts for SEDIMENT's own relying party, by what became of them: failed is given up after the "
        "last attempt, dropped never tried to the end.",
        ("result",),
        (((result,), counts[result]) for result in FORWARD_RESULTS),
    )


def relying(counts: RelyingCounts) -> Iterator[Metric]:
    """What happened at the relying party's port."""
    yield counters(
        "ragate_relying_messages",
        "Messages at the relying party's port that were judged, by kind and by what was true of them.",
        ("kind", "case"),
        counts.messages.items(),
    )
    for name, text, label, values in (
        (
            "carried",
            "DATA and KEY_CHANGE of admitted devices, by whether the other side took them.",
            "result",
            counts.carried,
        ),
        ("ends", "Connections at the relying party's port that ended, by reason.", "reason", counts.ends),
        (
            "copies",
            "Copies of PASSPORT_RESPONSE for the verifier, by what became of them.",
            "result",
            counts.copies,
        ),
    ):
        yield counters(f"ragate_relying_{name}", text, (label,), (((value,), n) for value, n in values.items()))
