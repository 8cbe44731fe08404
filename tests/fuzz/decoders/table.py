"""All decoders by name."""

from __future__ import annotations

from tests.fuzz.decoders import files, kernel, kubearmor, kubernetes, link, sediment, verdicts
from tests.fuzz.decoders.shape import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (sediment, verdicts, link, kernel, kubearmor, kubernetes, files)
    for target in room.TARGETS
}
