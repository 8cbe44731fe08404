"""How the service's processes run."""

from __future__ import annotations

SWITCH_SECONDS = 0.0005
"""How long a busy thread may keep the interpreter from another that has work: a verdict changes threads four times
(journal and lane, there and back), and Python's 5 ms each time would be the whole latency under load."""
