"""What the doctor finds about KubeArmor: its port and its settings.

What lives here: judging evidence of KubeArmor, whose facts are those of its ``KubeArmor/config/config.go`` and
``feeder``. What must not: gathering it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.doctor.containers import ports_of
from gateway.config.doctor.evidence import Evidence
from gateway.config.doctor.found import Found, shown, truth

#: KubeArmor's policy service.
KUBEARMOR_PORT = 32_767


def kubearmor_port(evidence: Evidence) -> Iterator[Found]:
    """KubeArmor's port, open to others."""
    ports = {KUBEARMOR_PORT, *_ports(evidence)}
    tls = bool(evidence.kubearmor) and all(truth(each.values.get("tlsenabled")) for each in evidence.kubearmor)
    for each in evidence.sockets or ():
        if each.port in ports and not each.address.is_loopback and not tls:
            said = "without TLS" if evidence.kubearmor else "and nothing shows that it asks for TLS"
            yield Found(f"port {each.port}", f"is open on {shown(each)}, {said}")
    for file in evidence.kubearmor:
        if not truth(file.values.get("tlsenabled")):
            yield Found(str(file.path), "tlsEnabled is not true: it takes policies from anybody who connects")
    for compose in evidence.composes:
        for name, service in compose.services.items():
            if any(port.inside in ports and not port.loopback for port in ports_of(service)):
                yield Found(f"{compose.path}: {name}", "publishes KubeArmor's port to every address")


def _ports(evidence: Evidence) -> Iterator[int]:
    for file in evidence.kubearmor:
        text = str(file.values.get("grpc", ""))
        if text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 65_535:
            yield int(text)


def kubearmor_debug(evidence: Evidence) -> Iterator[Found]:
    """Policies whose failure would not be told."""
    for file in evidence.kubearmor:
        if not truth(file.values.get("debug")):
            yield Found(str(file.path), "debug is not true")
