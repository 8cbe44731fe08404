"""The one host policy of a node: a small hardening of our own files, and the strict reader for written ones.

What can be said of "others may not write": a file's owner alone may touch it (``owner_only``), or nobody writes it
while the policy stands (``read_only``). "Only this program" would need an Allow rule, which turns every other file
access of the host into a whitelist question (interface 5), and is therefore not offered.
What must not live here: sending, reading back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.policies import FileRule, HostPolicy

#: Entries of KubeArmor's BPF map for the host, for the rules of all host policies together; the 257th is lost
#: and only logged (interface 5).
HOST_ENTRIES = 256

#: What SQLite keeps beside a database in WAL mode.
_JOURNAL_COMPANIONS = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Hardening:
    """What of ours the host policy protects; absolute paths.

    ``journal``   the journal's database: only its owner's uid opens, writes or removes it and its companions
    ``private``   further files of that sort: key files
    ``sealed``    directories where nobody writes while the policy stands, root and the owner included: policies,
                  configuration. To edit them, withdraw the policy first.
    An owner of uid 0 makes ``owner_only`` bind everybody but root. ``reserve`` is left to others' host policies.
    """

    journal: str | None = None
    private: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    reserve: int = 128


def build_host(hardening: Hardening, *, name: str, node: str, generation: int) -> HostPolicy | None:
    """Return the policy, or None when there is nothing to protect.

    Raises ``DocumentRefused`` for a path that KubeArmor cannot match and for a policy over its budget.
    """
    private = [*hardening.private]
    if hardening.journal is not None:
        private = [f"{hardening.journal}{suffix}" for suffix in _JOURNAL_COMPANIONS] + private
    files = (
        *(FileRule(path, owner_only=True) for path in private),
        *(FileRule(path.rstrip("/"), directory=True, read_only=True) for path in hardening.sealed),
    )
    if not files:
        return None
    policy = HostPolicy(
        name=name,
        node=node,
        generation=generation,
        tags=("RAGATE", "HARDENING"),
        message="protected file of the attestation gateway",
        severity=8,
        files=files,
    )
    check_budget(policy, HOST_ENTRIES - hardening.reserve)
    return policy


def check_budget(policy: HostPolicy, budget: int) -> None:
    """Raise ``DocumentRefused`` when the policy takes more map entries than ``budget``."""
    if policy.cost > budget:
        msg = (
            f"{policy.name}: its rules take {policy.cost} of {HOST_ENTRIES} map entries, {budget} are granted;"
            " name fewer or shallower directories"
        )
        raise DocumentRefused(msg)


_UNENFORCED = {
    "matchPatterns": "KubeArmor's BPF enforcer has no code for patterns and ignores them in silence",
    "capabilities": "KubeArmor's BPF enforcer leaves capabilities of host policies out in silence",
    "syscalls": "KubeArmor only audits system calls, it does not block them",
    "apparmor": "raw AppArmor text is not checked here",
    "process": "process rules are not used in host policies yet",
    "network": "network primitives are not used in host policies yet",
    "device": "device rules are not used in host policies yet",
    "fromSource": "source rules are not used in host policies yet",
    "pts": "terminal rules are not used in host policies yet",
}


def _section(document: Mapping[str, object], key: str, where: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        msg = f"{where}.{key}: must be a mapping"
        raise DocumentRefused(msg)
    return value


def _known(document: Mapping[str, object], known: set[str], where: str) -> None:
    for key in document:
        if key not in known:
            reason = _UNENFORCED.get(key, f"unknown; KubeArmor would drop it in silence (known: {sorted(known)})")
            msg = f"{where}.{key}: refused: {reason}"
            raise DocumentRefused(msg)


def _flag(rule: Mapping[str, object], key: str, where: str) -> bool:
    value = rule.get(key, False)
    if not isinstance(value, bool):
        msg = f"{where}.{key}: must be true or false"
        raise DocumentRefused(msg)
    return value


def _read_rule(rule: object, key: str, where: str) -> FileRule:
    if not isinstance(rule, dict):
        msg = f"{where}: must be a mapping"
        raise DocumentRefused(msg)
    directory = key == "dir"
    _known(rule, {key, "readOnly", "ownerOnly"} | ({"recursive"} if directory else set()), where)
    path = rule.get(key)
    if not isinstance(path, str):
        msg = f"{where}.{key}: must be text"
        raise DocumentRefused(msg)
    if directory and not (path.endswith("/") and _flag(rule, "recursive", where)):
        msg = f"{where}: a directory ends with '/' and is recursive here"
        raise DocumentRefused(msg)
    return FileRule(
        path.removesuffix("/") if directory else path,
        directory=directory,
        read_only=_flag(rule, "readOnly", where),
        owner_only=_flag(rule, "ownerOnly", where),
    )


def read_file_rules(spec: Mapping[str, object], where: str = "spec") -> tuple[FileRule, ...]:
    """Read the rules of a host policy's parsed ``spec``; the reverse of rendering.

    Raises ``DocumentRefused`` for whatever KubeArmor would drop, ignore or not enforce, with the reason:
    patterns, capabilities, unknown keys.
    """
    common = {"nodeSelector", "file", "severity", "tags", "message", "action"}
    _known(spec, common, where)
    if spec.get("action", "Block") != "Block":
        msg = f"{where}.action: only Block: an Allow rule makes the whole host a whitelist"
        raise DocumentRefused(msg)
    section = _section(spec, "file", where)
    _known(section, {"matchPaths", "matchDirectories"}, f"{where}.file")
    rules: list[FileRule] = []
    for name, key in (("matchPaths", "path"), ("matchDirectories", "dir")):
        items = section.get(name, [])
        if not isinstance(items, list):
            msg = f"{where}.file.{name}: must be a list"
            raise DocumentRefused(msg)
        rules += [_read_rule(item, key, f"{where}.file.{name}[{n}]") for n, item in enumerate(items)]
    return tuple(rules)
