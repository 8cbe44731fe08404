"""KubeArmor on this host: the layer that keeps its policies, what renders them, and the ear for its alerts.

What lives here: their settings, and which part of a book they are about. What must not: the path gate, clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gateway.agentlink import messages as wire
from gateway.config import SOURCE_ALERTS, AgentConfig, Config, KubeArmor, document_targets
from gateway.control.ports import Clock, Notice
from gateway.core.errors import ConfigError
from gateway.core.model import Instant
from gateway.core.policy import Book, CorridorEntry, Service
from gateway.enforce.kubearmor import KubeArmorAdvisory, KubeArmorSettings, Tables, connect, read_record
from gateway.kubearmor.alerts import RuntimeAlert
from gateway.kubearmor.host import Hardening
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope
from gateway.kubearmor.policies import Port
from gateway.kubearmor.prefixes import Prefix
from gateway.kubearmor.render import Library, Renderer
from gateway.watch.kubearmor import MESSAGE_BYTES, Ear, EarSettings


def _unheard(_: Notice) -> None:
    """For commands, which show a layer's state and end."""


def advisory(config: Config, clock: Clock, notice: Callable[[Notice], None] = _unheard) -> KubeArmorAdvisory | None:
    """The KubeArmor layer beside the path gate, where one is configured; ``notice`` takes what it has to tell.

    Raises ``ConfigError`` for an address beyond this host and for policies that KubeArmor could not enforce.
    """
    wanted = config.target.kubearmor
    if wanted is None:
        return None
    with refusals(config.path, config.target.name):
        scope = scope_of(config.book)
        # Nothing is sealed: a folder that root itself cannot write would surprise the operator who edits the book.
        hardening = Hardening(
            journal=str(config.journal), private=tuple(str(source.public_key_path) for source in config.sources)
        )
        return layer(config.target.name, wanted, clock, scope, hardening, notice)


def renderer(library: Library, book: Book, target: str, clusters: Collection[str] = ()) -> Renderer:
    """What makes the documents of a book's profiles for the target of this host, and for clusters."""
    return Renderer(library, document_targets(book, target, clusters))


def at_agent(
    config: AgentConfig, name: str, plan: wire.Plan, clock: Clock, notice: Callable[[Notice], None]
) -> KubeArmorAdvisory:
    """The layer of the host of an agent, whose file has one, for a plan. Raises ``ConfigError``."""
    assert config.kubearmor is not None
    with refusals(config.path, name):
        scope = Scope(
            gated=tuple(dict.fromkeys(Port(port, protocol) for _, _, port, protocol, _ in plan.services)),
            always_allowed=tuple(Prefix.parse(network) for network in plan.always_allowed),
            corridor=tuple(dict.fromkeys(Port(port, protocol) for _, port, protocol in plan.corridor)),
        )
        hardening = Hardening(private=(str(config.certificates.key),))
        return layer(name, config.kubearmor, clock, scope, hardening, notice)


def layer(
    target: str,
    wanted: KubeArmor,
    clock: Clock,
    scope: Scope,
    hardening: Hardening,
    notice: Callable[[Notice], None] = _unheard,
) -> KubeArmorAdvisory:
    """The KubeArmor layer of one host. Raises ``DocumentRefused``."""
    settings = _settings(wanted, target)
    return KubeArmorAdvisory(
        settings, clock, scope, hardening, lsm=partial(read_record, wanted.record), notice=notice
    )


def _settings(wanted: KubeArmor, target: str) -> KubeArmorSettings:
    return KubeArmorSettings(
        address=wanted.address,
        logs=wanted.logs,
        tls=wanted.tls,
        health=wanted.health,
        tables=Tables(wanted.tables),
        target=target,
    )


def ear(
    wanted: KubeArmor,
    clock: Clock,
    hear: Callable[[RuntimeAlert, Instant], None],
    lost: Callable[[str], None],
) -> Ear:
    """The listener at a host's KubeArmor. Raises ``ConfigError`` for an address beyond this host, or TLS files that
    cannot be used."""
    settings = _settings(wanted, "")
    return Ear(
        EarSettings(streams=wanted.streams, per_source=SOURCE_ALERTS),
        clock,
        lambda: connect(settings.events, settings.tls, MESSAGE_BYTES),
        hear,
        lost,
    )


@contextmanager
def refusals(file: Path, target: str) -> Iterator[None]:
    """Policies that KubeArmor could not enforce are a mistake of the configuration: ``ConfigError``."""
    try:
        yield
    except DocumentRefused as error:
        mend = "change the book or the paths, or leave kubearmor out of the target"
        raise ConfigError(str(file), f"target {target}: kubearmor: {error}", mend) from error


def scope_of(book: Book, only: Collection[str] | None = None) -> Scope:
    """What KubeArmor's network policy is about: these services of the book. Raises ``DocumentRefused``."""
    return Scope(
        gated=tuple(_ports(each for each in book.services if only is None or each.name in only)),
        always_allowed=tuple(Prefix.parse(str(network)) for network in book.always_allowed),
        corridor=tuple(_ports(book.corridor)),
    )


def _ports(named: Iterable[Service | CorridorEntry]) -> list[Port]:
    return list(dict.fromkeys(Port(each.port, each.protocol) for each in named))
