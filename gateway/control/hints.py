"""How many hints are taken: per device and source, and per source.

What lives here: counting by fixed windows of boot time. What must not: what a hint means, or who is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.model import DeviceId, Hint, SourceName


@dataclass(frozen=True, slots=True)
class HintLimits:
    """``per_device`` hints of one source about one device, and ``per_source`` of one source, in ``seconds``.

    One attestation makes one hint, and SEDIMENT's devices attest again after seconds at the soonest. Whoever may
    hand in hints could otherwise keep a device suspect for as long as it likes, and fill the journal.
    """

    per_device: int = 6
    per_source: int = 6_000
    seconds: float = 60.0


class HintRate:
    """Counts what one window has taken; memory is bounded by the devices named in it, which the inventory lists."""

    def __init__(self, limits: HintLimits = HintLimits()) -> None:
        self._limits = limits
        self._ends = 0.0
        self._of_source: dict[SourceName, int] = {}
        self._of_device: dict[tuple[SourceName, DeviceId], int] = {}

    def objection(self, hint: Hint, boot: float) -> str:
        """Take one hint at boot time ``boot`` and return ``""``, or say why it is one too many."""
        limits = self._limits
        if boot >= self._ends:
            self._ends = boot + limits.seconds
            self._of_source.clear()
            self._of_device.clear()
        of_source = self._of_source.get(hint.source, 0)
        if of_source >= limits.per_source:
            return f"more than {limits.per_source} hints of this source in {limits.seconds:g} s"
        pair = (hint.source, hint.device)
        of_device = self._of_device.get(pair, 0)
        if of_device >= limits.per_device:
            return f"more than {limits.per_device} hints about this device in {limits.seconds:g} s"
        self._of_source[hint.source] = of_source + 1
        self._of_device[pair] = of_device + 1
        return ""
