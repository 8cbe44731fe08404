"""What the doctor looks for: one table, one row a check, each with what it found, why it matters and the mend.

What lives here: the table, and going through it. What must not: gathering evidence, and judging it, which stands by
subject in modules of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gateway.config.doctor.containers import privileged, random_ports
from gateway.config.doctor.evidence import Evidence
from gateway.config.doctor.found import Found
from gateway.config.doctor.kubearmor import kubearmor_debug, kubearmor_port
from gateway.config.doctor.sediment import clocks, feed_reachable, pass_through, passport_life, published_keys


class Diagnosis(NamedTuple):
    """One insecure counterpart: the check's name, what it is about, what it is, why it matters, and the mend."""

    check: str
    subject: str
    what: str
    why: str
    mend: str


class Check(NamedTuple):
    """One row of the table. ``needs`` says what to give when ``has`` finds no evidence."""

    name: str
    why: str
    mend: str
    has: Callable[[Evidence], bool]
    needs: str
    look: Callable[[Evidence], Iterator[Found]]


class Report(NamedTuple):
    """``diagnoses`` in the table's order; ``clean`` checks that found nothing; ``unexamined`` (name, what to
    give)."""

    diagnoses: tuple[Diagnosis, ...]
    clean: tuple[str, ...]
    unexamined: tuple[tuple[str, str], ...]


def examine(evidence: Evidence, checks: Sequence[Check] | None = None) -> Report:
    """Go through the table."""
    diagnoses: list[Diagnosis] = []
    clean: list[str] = []
    unexamined: list[tuple[str, str]] = []
    for check in CHECKS if checks is None else checks:
        if not check.has(evidence):
            unexamined.append((check.name, check.needs))
            continue
        found = list(dict.fromkeys(check.look(evidence)))
        diagnoses += (Diagnosis(check.name, each.subject, each.what, check.why, check.mend) for each in found)
        if not found:
            clean.append(check.name)
    return Report(tuple(diagnoses), tuple(clean), tuple(unexamined))


# --- whether there is evidence -----------------------------------------------------------------------------------


def _has_boards(evidence: Evidence) -> bool:
    return bool(evidence.boards)


def _has_keys(evidence: Evidence) -> bool:
    return bool(evidence.boards or evidence.databases or evidence.pems or evidence.config)


def _has_ports(evidence: Evidence) -> bool:
    return bool(evidence.composes or evidence.config) or evidence.sockets is not None


def _has_composes(evidence: Evidence) -> bool:
    return bool(evidence.composes)


def _has_kubearmor(evidence: Evidence) -> bool:
    return bool(evidence.kubearmor)


def _has_kubearmor_port(evidence: Evidence) -> bool:
    return bool(evidence.kubearmor or evidence.composes) or evidence.sockets is not None


def _has_clocks(evidence: Evidence) -> bool:
    return evidence.synchronised is not None or bool(evidence.databases) or evidence.stale is not None


_SEDIMENT = "--sediment: its folder, or the files of configs/boards"
_COMPOSE = "--compose: the compose file of SEDIMENT's containers"
_KUBEARMOR = "--kubearmor: its kubearmor.yaml"

#: Everything that is looked for, in the order in which it is told.
CHECKS: tuple[Check, ...] = (
    Check(
        "pass-through",
        "a device that fails attestation gets a passport all the same, and its data goes on",
        "pass_thru_enabled false in the verifier's and the firewall's file, and restart both",
        _has_boards,
        _SEDIMENT,
        pass_through,
    ),
    Check(
        "published-keys",
        "anybody can sign verdicts or speak as the device with them: they are in SEDIMENT's public repository",
        "make keys of your own (docs/sediment.md, Keys), in SEDIMENT and here",
        _has_keys,
        _SEDIMENT,
        published_keys,
    ),
    Check(
        "unsigned-feed",
        "feed and API ask for no password: whoever reaches them makes honest attestations fail, has alerts "
        "signed for any name, or holds the verifier up by not reading",
        "let only this gateway reach the verifier's 8101 and 8102 (docs/sediment.md, Ports)",
        _has_ports,
        "--config, or --compose",
        feed_reachable,
    ),
    Check(
        "kubearmor-port",
        "whoever reaches KubeArmor's port can remove every policy: it is plaintext and asks for no password",
        "keep the port to loopback with a packet filter, or set tlsEnabled: true",
        _has_kubearmor_port,
        _KUBEARMOR,
        kubearmor_port,
    ),
    Check(
        "privileged-container",
        "who breaks into it owns the host, path gate and keys included; SEDIMENT's programs need no privileges",
        "remove privileged and cap_add; run it as a user of its own, read-only",
        _has_composes,
        _COMPOSE,
        privileged,
    ),
    Check(
        "random-ports",
        "packet filter, corridor and path gate name ports: one that changes at each start is closed to the "
        "right ones or open to the wrong ones",
        "publish each port as HOST_ADDRESS:PORT:PORT",
        _has_composes,
        _COMPOSE,
        random_ports,
    ),
    Check(
        "passport-life",
        "devices attest again when their passport ends: until then they lapse here, and in SEDIMENT a failed "
        "device keeps a passport from before",
        "passport_period below max_age by one retry: 600 with max_age: 15m",
        _has_boards,
        _SEDIMENT,
        passport_life,
    ),
    Check(
        "clocks",
        "a pass older than 120 s or more than 2 s ahead raises nobody: devices lapse though they attest",
        "let verifier and gateway follow the same time server (chronyc tracking)",
        _has_clocks,
        "--config, or --sediment with the verifier's database",
        clocks,
    ),
    Check(
        "kubearmor-debug",
        "KubeArmor tells of policies that it could not apply only while debug is on: an accepted policy may stand "
        "nowhere",
        "debug: true in kubearmor.yaml",
        _has_kubearmor,
        _KUBEARMOR,
        kubearmor_debug,
    ),
)
