"""What the clockwork follows to its end, and what it finds when it looks again.

What must not live here: lanes, backends, journals.
"""

from __future__ import annotations

from gateway.core.model import DENY, DeviceId, Rule, Stands

MISSING_SLACK = 1.0
"""Seconds before its end in which an admission's absence is no drift: kernel timers round."""


class Cause:
    """One journalled event whose enforcement is followed to the end.

    ``left`` counts what is still to come: each address it touches, and its commit. ``verified`` is the boot time
    at which the last address was read back, ``durable`` that of the commit.
    """

    __slots__ = (
        "accepted",
        "detail",
        "device",
        "durable",
        "failed",
        "left",
        "profile",
        "received",
        "seq",
        "verified",
    )

    def __init__(self, seq: int, device: DeviceId, profile: str, received: float, left: int) -> None:
        self.seq = seq
        self.device = device
        self.profile = profile
        self.received = received
        self.left = left
        self.accepted = 0.0
        self.verified = 0.0
        self.durable = 0.0
        self.failed = False
        self.detail = ""


def drift(expected: Rule | None, stands: Stands, now: float) -> str:
    """Say what is wrong with what stands, or "" when it is as expected at boot time ``now``."""
    tombstone = expected is not None and expected.profile == DENY and expected.tombstone
    if tombstone:
        return "" if stands.tombstone and not stands.profile else "the tombstone is gone or is not alone"
    if expected is None or expected.profile == DENY:
        return f"admitted as {stands.profile} though nothing admits it" if stands.profile else ""
    if stands.tombstone:
        return "a tombstone stands that was never set here"
    if stands.profile == expected.profile:
        return "" if stands.remaining is not None else "the admission has no end"
    if expected.until - now <= MISSING_SLACK and not stands.profile:
        return ""
    return f"expected {expected.profile}, found {stands.profile or 'nothing'}"
