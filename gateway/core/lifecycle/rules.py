"""How one source's verdicts are weighed.

What lives here: the weights and the bounds of what is remembered. What must not: weighing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

#: Nonces remembered for the newest second. A verifier sends one or two verdicts of a device in one second, while
#: a device can put any number of nonces of its own under one signature: the memory must have an end.
MAX_NONCES = 32


@dataclass(frozen=True, slots=True)
class Rules:
    """How one source's verdicts are weighed. Times in seconds.

    ``max_age``          a pass admits for at most this long after it was issued.
    ``recovery_passes``  satisfying passes owed after a failure, each issued later than the one before.
    ``skew``             how far the source's clock may be ahead of ours when a pass must be newer than a suspicion.
    ``grace``            what a solicited REQUESTED leaves of a deadline, once per accepted pass.

    Raises ``ValueError`` for values under which a failure could be forgotten or nothing would ever admit.
    """

    max_age: float = 900.0
    recovery_passes: int = 2
    skew: float = 2.0
    grace: float = 300.0

    def __post_init__(self) -> None:
        if not (self.max_age > 0 and self.recovery_passes >= 1 and self.skew >= 0 and self.grace >= 0):
            msg = f"max_age must be above 0, recovery_passes at least 1, skew and grace not negative: {self}"
            raise ValueError(msg)

    def with_own(self, *, max_age: float | None, recovery_passes: int | None) -> Rules:
        """The same with another maximum age or recovery, where given: the book may know a device better."""
        return _with_own(self, max_age, recovery_passes)


@lru_cache(maxsize=1_024)
def _with_own(rules: Rules, max_age: float | None, recovery_passes: int | None) -> Rules:
    return replace(
        rules,
        max_age=rules.max_age if max_age is None else max_age,
        recovery_passes=rules.recovery_passes if recovery_passes is None else recovery_passes,
    )
