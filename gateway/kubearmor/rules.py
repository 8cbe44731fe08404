"""The rules of container and host policies: what may be executed, opened, used and asked.

They hold whatever can be written, right or wrong. Field names and types are those of
``KubeArmor/types/types.go`` of kubearmor/KubeArmor at commit 510cee31.
What must not live here: whole documents, rules about values.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.kubearmor.elements import Acting, Element, Form, Remarked, wired


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Element):
    """The program from which an access comes."""

    path: str = wired("path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Acting):
    """A rule that some programs only may be bound by."""

    sources: tuple[Source, ...] = wired("fromSource", Form.MANY, Source)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPath(Rule):
    """Executing one program, by path or by bare name."""

    path: str = wired("path")
    execname: str = wired("execname")
    owner_only: bool | None = wired("ownerOnly", Form.TRUTH)
    pts: bool | None = wired("pts", Form.TRUTH)
    allowed_args: tuple[str, ...] = wired("allowedArgs", Form.TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDirectory(Rule):
    """Executing what lies in a directory."""

    directory: str = wired("dir", need=True)
    recursive: bool | None = wired("recursive", Form.TRUTH)
    owner_only: bool | None = wired("ownerOnly", Form.TRUTH)
    pts: bool | None = wired("pts", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPattern(Acting):
    """Executing what a pattern matches."""

    pattern: str = wired("pattern", need=True)
    owner_only: bool | None = wired("ownerOnly", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePath(Rule):
    """Opening one file."""

    path: str = wired("path", need=True)
    read_only: bool | None = wired("readOnly", Form.TRUTH)
    owner_only: bool | None = wired("ownerOnly", Form.TRUTH)
    pts: bool | None = wired("pts", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDirectory(Rule):
    """Opening what lies in a directory."""

    directory: str = wired("dir", need=True)
    read_only: bool | None = wired("readOnly", Form.TRUTH)
    recursive: bool | None = wired("recursive", Form.TRUTH)
    owner_only: bool | None = wired("ownerOnly", Form.TRUTH)
    pts: bool | None = wired("pts", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePattern(Acting):
    """Opening what a pattern matches."""

    pattern: str = wired("pattern", need=True)
    read_only: bool | None = wired("readOnly", Form.TRUTH)
    owner_only: bool | None = wired("ownerOnly", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolRule(Rule):
    """Using a protocol or type of socket, whatever the address; a comma separates several."""

    protocol: str = wired("protocol", need=True)
    pts: bool | None = wired("pts", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRule(Rule):
    """Asking DNS for a name; a comma separates several."""

    domain: str = wired("domain", need=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityRule(Rule):
    """Using a Linux capability; a comma separates several."""

    capability: str = wired("capability", need=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallSource(Source):
    """The program or directory of programs from which a system call comes."""

    directory: str = wired("dir")
    recursive: bool | None = wired("recursive", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallRule(Remarked):
    """Making system calls. The engine only audits them."""

    syscalls: tuple[str, ...] = wired("syscall", Form.TEXTS)
    sources: tuple[SyscallSource, ...] = wired("fromSource", Form.MANY, SyscallSource)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallPath(SyscallRule):
    """Making system calls upon a path."""

    path: str = wired("path")
    recursive: bool | None = wired("recursive", Form.TRUTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule(Acting):
    """Attaching a class of USB device."""

    device_class: str = wired("class", need=True)
    subclass: int | None = wired("subClass", Form.WHOLE)
    protocol: int | None = wired("protocol", Form.WHOLE)
    level: int | None = wired("level", Form.WHOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset(Element):
    """A ready-made rule of the engine."""

    name: str = wired("name")
    action: str = wired("action")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes(Acting):
    """The section ``process``."""

    paths: tuple[ProcessPath, ...] = wired("matchPaths", Form.MANY, ProcessPath)
    directories: tuple[ProcessDirectory, ...] = wired("matchDirectories", Form.MANY, ProcessDirectory)
    patterns: tuple[ProcessPattern, ...] = wired("matchPatterns", Form.MANY, ProcessPattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files(Acting):
    """The section ``file``."""

    paths: tuple[FilePath, ...] = wired("matchPaths", Form.MANY, FilePath)
    directories: tuple[FileDirectory, ...] = wired("matchDirectories", Form.MANY, FileDirectory)
    patterns: tuple[FilePattern, ...] = wired("matchPatterns", Form.MANY, FilePattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets(Acting):
    """The section ``network`` of container and host policies."""

    protocols: tuple[ProtocolRule, ...] = wired("matchProtocols", Form.MANY, ProtocolRule)
    domains: tuple[DomainRule, ...] = wired("matchDNSQueries", Form.MANY, DomainRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities(Acting):
    """The section ``capabilities``."""

    capabilities: tuple[CapabilityRule, ...] = wired("matchCapabilities", Form.MANY, CapabilityRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Syscalls(Remarked):
    """The section ``syscalls``."""

    rules: tuple[SyscallRule, ...] = wired("matchSyscalls", Form.MANY, SyscallRule)
    paths: tuple[SyscallPath, ...] = wired("matchPaths", Form.MANY, SyscallPath)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices(Acting):
    """The section ``device``."""

    devices: tuple[DeviceRule, ...] = wired("matchDevice", Form.MANY, DeviceRule)
