"""What rules cost: the entries of the one kernel table that each container, and each host, has for all policies.

The expansion is that of the BPF enforcer (interface 5; ``KubeArmor/enforcer/bpflsm/rulesHandling.go`` at commit
510cee31): a path is one entry, a directory two and one for each ancestor, every socket type seven, a DNS name one
for each suffix, and a class with an Allow rule has a marker. Audit rules are not in the table.
What must not live here: judging; which documents share a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.kubearmor.documents import ContainerSpec, HostSpec, NetworkSpec
from gateway.kubearmor.elements import Acting, Remarked
from gateway.kubearmor.findings import Place
from gateway.kubearmor.rules import (
    CapabilityRule,
    DomainRule,
    FileDirectory,
    FilePath,
    ProcessDirectory,
    ProcessPath,
    ProtocolRule,
    Rule,
)
from gateway.kubearmor.vocabulary import DNS_SUFFIXES, SOCKET_TYPES

#: The namespace of every container without Kubernetes (interface 5); in a cluster the entry is as many.
_NAMESPACE_SUFFIX = ".container_namespace.svc.cluster.local"

_NORMAL = {"": "Block", "allow": "Allow", "audit": "Audit", "block": "Block"}


class Entry(NamedTuple):
    """An entry of the table: what space its key is in, the key, and the program that it is about."""

    space: str
    key: str
    source: str


class Use(NamedTuple):
    """A rule as it goes into the table.

    ``subject``  what a later rule would replace: class, text and source
    ``value``    what would be replaced: action and flags
    ``entries``  the table's entries, markers included
    """

    at: Place
    subject: tuple[str, str, str]
    value: tuple[object, ...]
    entries: tuple[Entry, ...]


def effective(rule: Acting, section: Acting | None, spec: Acting) -> str:
    """Return the action that counts: the nearest, the spec's normalised, Block when there is none."""
    nearest = rule.action or (section.action if section is not None else "")
    return nearest or _NORMAL.get(spec.action, spec.action)


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a comma list as the engine expands it."""
    return tuple(word.replace(" ", "") for word in text.split(","))


def acting(spec: ContainerSpec | HostSpec | NetworkSpec) -> Iterator[tuple[Acting, str]]:
    """Return every rule and entry that has an action of its own, with the action that counts."""
    for section, rule in _rules(spec):
        yield rule, effective(rule, section, spec)


def _rules(spec: ContainerSpec | HostSpec | NetworkSpec) -> Iterator[tuple[Acting | None, Acting]]:
    if isinstance(spec, NetworkSpec):
        for _, entries in spec.directions():
            yield from ((None, entry) for entry in entries)
        return
    for paths in (spec.process, spec.file):
        if paths is not None:
            for path_rule in (*paths.paths, *paths.directories, *paths.patterns):
                yield paths, path_rule
    if spec.network is not None:
        for socket_rule in (*spec.network.protocols, *spec.network.domains):
            yield spec.network, socket_rule
    if spec.capabilities is not None:
        for capability in spec.capabilities.capabilities:
            yield spec.capabilities, capability
    if isinstance(spec, HostSpec) and spec.device is not None:
        for device in spec.device.devices:
            yield spec.device, device


def directory_keys(directory: str) -> tuple[str, ...]:
    """Return the keys of a directory, which ends with '/': without and with the '/', then its ancestors."""
    parts = directory.split("/")
    ancestors = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts) - 1))
    return "/".join(parts[:-1]), directory, *ancestors


_SPACES: Mapping[type[Rule], str] = {
    ProcessPath: "process",
    ProcessDirectory: "process",
    FilePath: "file",
    FileDirectory: "file",
    ProtocolRule: "network",
    DomainRule: "dns",
    CapabilityRule: "capability",
}


def _keys(rule: Rule, *, host: bool) -> tuple[str, str, tuple[str, ...]]:
    """The class, the name and the keys of a rule; of protocols, domains and capabilities one word each."""
    if isinstance(rule, (ProcessPath, FilePath)):
        path = (isinstance(rule, ProcessPath) and rule.execname) or rule.path
        found: tuple[str, tuple[str, ...]] = path, (path,)
    elif isinstance(rule, (ProcessDirectory, FileDirectory)):
        found = rule.directory, directory_keys(rule.directory)
    elif isinstance(rule, ProtocolRule):
        word = rule.protocol.lower()
        found = word, SOCKET_TYPES if word == "all" else (word,)
    elif isinstance(rule, DomainRule):
        domain = rule.domain.strip(".")
        suffixes = DNS_SUFFIXES if host else (*DNS_SUFFIXES, _NAMESPACE_SUFFIX)
        found = domain, tuple(domain + suffix for suffix in suffixes)
    elif isinstance(rule, CapabilityRule):
        word = rule.capability.lower().removeprefix("cap_")
        found = word, (word,)
    else:
        found = "", ()
    return _SPACES.get(type(rule), ""), *found


def _expanded(rule: Rule) -> Iterator[Rule]:
    """One rule for each word of a comma list."""
    if isinstance(rule, ProtocolRule):
        yield from (ProtocolRule(protocol=word) for word in listed(rule.protocol))
    elif isinstance(rule, DomainRule):
        yield from (DomainRule(domain=word) for word in listed(rule.domain))
    elif isinstance(rule, CapabilityRule):
        yield from (CapabilityRule(capability=word) for word in listed(rule.capability))
    else:
        yield rule


def _flags(rule: Remarked) -> tuple[object, ...]:
    names = ("read_only", "owner_only", "recursive")
    flags = tuple(bool(getattr(rule, name, False)) for name in names)
    return (*flags, getattr(rule, "pts", None) is False, getattr(rule, "allowed_args", ()))


def uses(spec: ContainerSpec | HostSpec) -> Iterator[Use]:
    """Return what a policy's rules put into the table; what the engine leaves out is left out."""
    host = isinstance(spec, HostSpec)
    for rule, action in acting(spec):
        if action not in {"Allow", "Block"} or not isinstance(rule, Rule):
            continue
        if host and isinstance(rule, CapabilityRule):
            continue
        sources = tuple(source.path for source in rule.sources) or ("",)
        for one in _expanded(rule):
            space, name, keys = _keys(one, host=host)
            shared = "path" if space in {"process", "file"} else space
            marker = (Entry("marker", space, ""),) if action == "Allow" else ()
            for source in sources:
                entries = (*marker, *(Entry(shared, key, source) for key in keys))
                yield Use(rule.at, (space, name, source), (action, *_flags(rule)), entries)


def count(specs: Iterable[ContainerSpec | HostSpec]) -> int:
    """Return how many entries the policies take together."""
    return len({entry for spec in specs for use in uses(spec) for entry in use.entries})
