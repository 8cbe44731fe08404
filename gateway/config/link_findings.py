"""What an operator should look at about certificates and agents, although the configuration can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from gateway.certs.identity import IdentityRefused, Role, check_standing
from gateway.certs.material import MaterialFiles, load_material
from gateway.certs.served import ServedFiles, load_served
from gateway.config.values import AgentConfig, Config
from gateway.core.errors import ConfigError
from gateway.core.policy import Finding

#: Days before its end from which a certificate is worth a word.
SOON_DAYS = 14
DAY = 86_400.0


def of_certificates(files: MaterialFiles, role: Role, now: float) -> Iterator[Finding]:
    """What is wrong with a host's own certificate."""
    try:
        material = load_material(files, role)
    except ConfigError as error:
        yield Finding("error", "certificates", f"{error.where}: {error.what}", error.mend)
        return
    subject = f"certificate {files.certificate}"
    try:
        check_standing(material.identity, material.revoked, now)
    except IdentityRefused as error:
        yield Finding("error", subject, str(error), "ragate certs issue or renew makes a new one; copy it here")
        return
    left = (material.identity.not_after - now) / DAY
    if left < SOON_DAYS:
        yield Finding("warning", subject, f"expires in {left:.1f} days", "ragate certs renew, then copy it here")
    if files.revoked is None:
        what = "no revocation list is named: a stolen certificate is good until it expires"
        yield Finding("warning", "certificates", what, "write revoked: with the path of ca.crl")


def of_served(door: str, files: ServedFiles, now: float) -> Iterator[Finding]:
    """What is to be said of the certificate and the lists of a door for posted documents."""
    try:
        served = load_served(files)
    except ConfigError as error:
        yield Finding("error", door, f"{error.where}: {error.what}", error.mend)
        return
    left = served.left(now) / DAY
    if left <= 0:
        what = f"the certificate {files.certificate} has expired: no client will shake hands"
        yield Finding("error", door, what, "put a new one there; it is taken while the service runs")
    elif left < SOON_DAYS:
        what = f"the certificate {files.certificate} expires in {left:.1f} days"
        yield Finding("warning", door, what, "put a new one there; it is taken while the service runs")
    if files.client_ca is not None and files.client_crl is None:
        what = "no revocation list is named: a stolen client certificate is good until it expires"
        yield Finding("warning", door, what, "write client_crl, or give clients short-lived certificates")
    if served.list_ends is not None and served.list_ends <= now:
        what = f"the revocation list {files.client_crl} has ended: every client is refused"
        yield Finding("error", door, what, "put the CA's newest list there")


def of_link(config: Config) -> Iterator[Finding]:
    """What is to be said of agents' targets and of the gateway's own certificate."""
    if config.certificates is not None:
        yield from of_certificates(config.certificates, Role.GATEWAY, time.time())
    for remote in config.remotes:
        if remote.lease > config.target.lease:
            what = f"its lease of {remote.lease:g} s is longer than the gateway's own {config.target.lease:g} s"
            yield Finding(
                "warning", f"target {remote.name}", what, "a shorter one ends sooner when the link is lost"
            )
        if not remote.required:
            what = "it is not required: the path gate opens without it"
            yield Finding(
                "warning", f"target {remote.name}", what, "leave out required: false where both must hold"
            )


def agent_findings(config: AgentConfig, plan: Path) -> tuple[Finding, ...]:
    """Every finding about an agent's configuration. ``plan``: where it keeps the newest plan."""
    found = [*of_certificates(config.certificates, Role.AGENT, time.time())]
    if not plan.exists():
        what = "it has never been attached: until it is, nothing is enforced on this host"
        found.append(Finding("warning", "plan", what, "start it, and look at ragate check on the gateway"))
    return tuple(found)
