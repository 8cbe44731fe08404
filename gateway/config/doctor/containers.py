"""What the doctor finds in compose files: published ports and privileges.

What lives here: reading services of the compose specification, and judging them. What must not: reading files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway.config.doctor.evidence import Evidence
from gateway.config.doctor.found import NAMED, TRUE, Found

_PRIVILEGED_CAPABILITIES = frozenset({"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"})


class Port(NamedTuple):
    """One published port."""

    inside: int
    outside: str  # as written; "": the engine chooses one
    loopback: bool


def ports_of(service: Mapping[str, Any]) -> Iterator[Port]:
    """A service's published ports, in the short and the long form of the compose specification."""
    listed = service.get("ports")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            host, outside, inside = (
                str(entry.get("host_ip", "")),
                entry.get("published"),
                str(entry.get("target", "")),
            )
            yield from _span(inside, "" if outside is None else str(outside), host)
            continue
        text = str(entry).partition("/")[0]
        head, _, inside = text.rpartition(":")
        host, colon, outside = head.rpartition(":")
        yield from _span(inside, outside if colon else head, host.strip("[]"))


def _span(inside: str, outside: str, host: str) -> Iterator[Port]:
    first, _, last = inside.partition("-")
    if not (first.isdigit() and (last or first).isdigit()):
        return
    loopback = host.startswith("127.") or host in {"::1", "localhost"}
    for port in range(int(first), min(int(last or first), int(first) + 1_000) + 1):
        yield Port(port, outside.strip(), loopback)


def _is_kubearmor(name: str, service: Mapping[str, Any]) -> bool:
    return "kubearmor" in f"{name} {service.get('image', '')}".lower()


def privileged(evidence: Evidence) -> Iterator[Found]:
    """Containers that own their host."""
    for compose in evidence.composes:
        for name, service in compose.services.items():
            if _is_kubearmor(name, service):  # it loads BPF programs: nothing less would do
                continue
            where = f"{compose.path}: {name}"
            if str(service.get("privileged", "")).lower() in TRUE:
                yield Found(where, "runs privileged")
            added = service.get("cap_add")
            names = {str(each).upper().removeprefix("CAP_") for each in added} if isinstance(added, list) else set()
            if names & _PRIVILEGED_CAPABILITIES:
                yield Found(where, f"has {', '.join(sorted(names & _PRIVILEGED_CAPABILITIES))}")


def random_ports(evidence: Evidence) -> Iterator[Found]:
    """Ports that change at each start."""
    for compose in evidence.composes:
        for name, service in compose.services.items():
            chosen = sorted({port.inside for port in ports_of(service) if port.outside in {"", "0"}})
            spans = sorted({port.outside for port in ports_of(service) if "-" in port.outside})
            if chosen:
                listed = ", ".join(map(str, chosen[:NAMED]))
                yield Found(f"{compose.path}: {name}", f"publishes {listed} on ports that the engine chooses")
            elif spans and len({port.inside for port in ports_of(service)}) == 1:
                yield Found(f"{compose.path}: {name}", f"publishes its port somewhere in {', '.join(spans)}")
