"""A container's name as it goes over the wire, so that a policy matches that container alone and itself.

KubeArmor takes the name as an unanchored POSIX expression and searches it in ``kubearmor.io/container.name=NAME``
of each endpoint (``KubeArmor/common/common.go:78-94,507-514``): ``web`` matches ``web-admin`` too, so books write
``web$``. Until the container exists, the endpoint bears the expression itself as its name
(``core/unorchestratedUpdates.go:198-222``), and ``web$`` does not match the text ``web$``: the policy is deleted in
memory, the answer is NotExist and the file stays, so that it comes back with the next start (seen with the daemon
itself). The second branch of ``web$|=web[$][|]`` matches that text, and no container: neither ``$`` nor ``|`` can
stand in a container's name.
What must not live here: which names are allowed, sending.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gateway.kubearmor.vocabulary import CONTAINER_LABEL

_PLAIN = re.compile(r"([A-Za-z0-9_-]+)\$\Z")
_WIRE = re.compile(r"([A-Za-z0-9_-]+)\$\|=\1\[\$\]\[\|\]\Z")


def to_wire(name: str) -> str:
    """Return the expression to send for a name that ends with ``$``; any other text as it is."""
    plain = _PLAIN.match(name)
    return name if plain is None else f"{plain[1]}$|={plain[1]}[$][|]"


def of_wire(name: str) -> str:
    """Return what ``to_wire`` was given; any other text as it is."""
    wire = _WIRE.match(name)
    return name if wire is None else f"{wire[1]}$"


def relabelled(spec: Mapping[str, object], turn: Callable[[str], str]) -> dict[str, object]:
    """Return a container policy's ``spec`` with the name in its selector turned by ``to_wire`` or ``of_wire``."""
    selector = spec.get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    if not isinstance(selector, dict) or not isinstance(labels, dict):
        return dict(spec)
    name = labels.get(CONTAINER_LABEL)
    if not isinstance(name, str):
        return dict(spec)
    return {**spec, "selector": {**selector, "matchLabels": {**labels, CONTAINER_LABEL: turn(name)}}}
