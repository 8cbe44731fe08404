"""Facts, and who folds over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.core.model import Enforced, Instant, Rejected, Transition, Verdict


class Notice(NamedTuple):
    """A fact about the service itself (drift repaired, backend failed, journal unwritable, device withheld)."""

    # The closed list: drift, backend-error, journal, withheld, clock, backlog, conflict, late-failure, book,
    # bypass, agent, certificate, override, site, resources, asked, tls, alert, alerts, kubearmor.
    kind: str
    subject: str  # backend, queue or device concerned; a label only for backend and queue
    detail: str
    at: float  # UNIX seconds
    times: int = 1


Fact = Rejected | Notice
"""What is told one by one."""

Step = tuple[Transition, Verdict | None, Instant]
"""A transition, the authenticated verdict that caused it (None: another event), and when that came."""

Answered = tuple[int, Enforced]
"""The journal's row of an event (0: none), and what came of it at one target."""


class Observer(Protocol):
    """Folds over facts (metrics, log, the terminal). Must not raise, decide, or change what it is given."""

    def stepped(self, steps: Sequence[Step]) -> None:
        """Take the steps of one turn, in order; at least one."""
        ...

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        """Take what came of decisions, in order; at least one."""
        ...

    def observe(self, fact: Fact) -> None:
        """Take one fact of another kind."""
        ...
