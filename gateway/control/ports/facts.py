"""Facts, and who folds over them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.core.model import Enforced, Event, Rejected, Transition


class Notice(NamedTuple):
    """A fact about the service itself (drift repaired, backend failed, journal unwritable, device withheld)."""

    # The closed list: drift, backend-error, journal, withheld, clock, backlog, conflict, late-failure, book,
    # bypass, agent, certificate, override, site, resources, asked, tls, alert, alerts, kubearmor.
    kind: str
    subject: str  # backend, queue or device concerned; a label only for backend and queue
    detail: str
    at: float  # UNIX seconds
    times: int = 1


Fact = Transition | Rejected | Enforced | Notice | Event


class Observer(Protocol):
    """Folds over facts (metrics, event streams, the terminal). Must not raise and must not decide."""

    def observe(self, fact: Fact) -> None:
        """Take one fact."""
        ...
