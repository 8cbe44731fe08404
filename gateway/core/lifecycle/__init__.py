"""The lifecycle: what each event does to the standing and marks of one (device, source).

Everything that changes a standing lives in this package, and this package knows nothing else: state is one table
over all (standing, event) pairs, an unlisted pair is an error, and on an error nothing has changed. The fold over a
device's sources is here too. What must not: which profile a standing gets, addresses, time of its own.

Raising is strict, lowering is generous. The marks (order, epoch, debt, suspicion) bind a pass whatever standing
it meets; only satisfying passes clear them.
"""

from __future__ import annotations

from gateway.core.lifecycle.folding import capped, fold
from gateway.core.lifecycle.rules import MAX_NONCES, Rules
from gateway.core.lifecycle.steps import Handler, Step
from gateway.core.lifecycle.table import TABLE, event_of, step, table_markdown

__all__ = [
    "MAX_NONCES",
    "TABLE",
    "Handler",
    "Rules",
    "Step",
    "capped",
    "event_of",
    "fold",
    "step",
    "table_markdown",
]
