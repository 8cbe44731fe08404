"""Two hosts' boot clocks: a moment of the other's that has certainly not passed beyond ours.

Pure. An agent says its boot clock; the gateway notes its own when that arrives. At that moment the agent's clock
had moved on by the time the message took, so "theirs minus ours" is a lower bound of the true difference, and the
largest of several such bounds the best one. An end that is told by it comes early by the shortest way that a
message took (well under a millisecond on a site), never late: however long the message that tells it is on its way.
"""

from __future__ import annotations

from collections import deque

#: Bounds that are kept: half a minute of beats. Older ones would let the clocks' drift add up.
KEPT = 30

#: Seconds a second by which two boot clocks may drift apart: the kernel slews each by at most 500 ppm
#: (adjtimex(2), MAXFREQ), and both may be slewed apart.
DRIFT = 0.001


class ClockBound:
    """What one side knows of the other's boot clock. Times are boot seconds."""

    def __init__(self) -> None:
        self._bounds: deque[tuple[float, float]] = deque(maxlen=KEPT)  # ours at arrival, theirs minus ours

    def learn(self, theirs: float, ours: float) -> None:
        """A message that says ``theirs`` was read when our clock showed ``ours``."""
        self._bounds.append((ours, theirs - ours))

    def theirs_at_least(self, ours: float) -> float:
        """A moment that their clock has certainly reached when ours shows ``ours``.

        Raises ``LookupError`` before anything was learnt.
        """
        if not self._bounds:
            msg = "the other end has not told its clock yet"
            raise LookupError(msg)
        return ours + max(bound - DRIFT * max(0.0, ours - at) for at, bound in self._bounds)

    def ours_at_most(self, theirs: float) -> float:
        """A moment of ours that is not before the one at which their clock showed ``theirs``."""
        if not self._bounds:
            msg = "the other end has not told its clock yet"
            raise LookupError(msg)
        return theirs - max(bound for _, bound in self._bounds)
