"""Ways around the path gate of this network namespace: what the kernel would let past without judging it."""

from __future__ import annotations

from gateway.watch.bypass.judge import Bypass, judge
from gateway.watch.bypass.look import look
from gateway.watch.bypass.rtnetlink import LookError
from gateway.watch.bypass.watch import BypassWatch

__all__ = ["Bypass", "BypassWatch", "LookError", "judge", "look"]
