"""The rehearsal: what another book would change, before it does.

What lives here: two books over the same devices, a journal's events under another book, and one event that has not
happened. What must not: reading files or journals, the time of day, changing anything. The law itself is asked,
never repeated: whatever the lifecycle and the policy say here, they say in the running service.
"""

from __future__ import annotations

from gateway.core.rehearsal.compare import (
    NOW,
    Budget,
    Comparison,
    Documents,
    Group,
    State,
    compare,
    compare_documents,
    profiles_of,
)
from gateway.core.rehearsal.hypothetical import IMAGINABLE, Hypothesis, hypothetical, imagine
from gateway.core.rehearsal.replay import Differences, Differing, Journalled, Replay, Span, replay, starting
from gateway.core.rehearsal.shifts import Shift, Shifts, lowest_sharer

__all__ = [
    "IMAGINABLE",
    "NOW",
    "Budget",
    "Comparison",
    "Differences",
    "Differing",
    "Documents",
    "Group",
    "Hypothesis",
    "Journalled",
    "Replay",
    "Shift",
    "Shifts",
    "Span",
    "State",
    "compare",
    "compare_documents",
    "hypothetical",
    "imagine",
    "lowest_sharer",
    "profiles_of",
    "replay",
    "starting",
]
