"""Rules about container and host policies: what the schema refuses, what the engine ignores or takes otherwise.

What must not live here: rules about network policies, about several documents.
"""

from __future__ import annotations

import re

from gateway.kubearmor.budget import acting, listed
from gateway.kubearmor.codes import Notes, quoted
from gateway.kubearmor.documents import ContainerDocument, ContainerSpec, HostDocument, HostSpec
from gateway.kubearmor.elements import Element, descend
from gateway.kubearmor.findings import Place
from gateway.kubearmor.rules import (
    CapabilityRule,
    DeviceRule,
    Devices,
    DomainRule,
    FileDirectory,
    FilePath,
    FilePattern,
    Preset,
    ProcessDirectory,
    ProcessPath,
    ProcessPattern,
    ProtocolRule,
    Rule,
    Source,
    SyscallPath,
    SyscallRule,
    SyscallSource,
)
from gateway.kubearmor.vocabulary import (
    CAPABILITIES,
    MAX_ARGUMENT,
    MAX_ARGUMENTS,
    MAX_DIRECTORY,
    MAX_PATH,
    PRESET_ACTIONS,
    PRESETS,
    PROTOCOLS,
    SYSCALLS,
)

#: The schema takes a path in lower or upper case only.
_PROTOCOL_WORDS = frozenset((*PROTOCOLS, *(word.upper() for word in PROTOCOLS)))
_CAPABILITY_WORDS = frozenset((*CAPABILITIES, *(f"cap_{word}" for word in CAPABILITIES)))
_WILDCARD = re.compile(r"[*?\[\]{}]")


def check_access(document: ContainerDocument | HostDocument, notes: Notes) -> None:
    """Note what is wrong with the rules of a container or host policy."""
    spec = document.spec
    for element in descend(spec):
        _check_element(element, notes)
        if (
            isinstance(element, (ProtocolRule, CapabilityRule))
            and not element.sources
            and isinstance(spec, HostSpec)
        ):
            mend = "write fromSource with the programs it is about"
            notes.add("KA-REQUIRED", element.at, "'fromSource' is missing in a host policy", mend)
    _check_actions(spec, notes)
    if spec.apparmor:
        mend = "use rules that every enforcer reads"
        notes.add("KA-APPARMOR", spec.place("apparmor"), "apparmor is text for one enforcer", mend)
    if isinstance(spec, HostSpec) and spec.capabilities is not None and spec.capabilities.capabilities:
        mend = "restrict the programs themselves with process or file rules"
        notes.add("KA-IGNORED-CAPABILITY", spec.place("capabilities"), "capabilities are ignored here", mend)
    if spec.syscalls is not None and (spec.syscalls.rules or spec.syscalls.paths) and spec.action in {"", "Block"}:
        mend = "write action: Audit on the spec, or use rules that can stop something"
        notes.add("KA-SYSCALL-AUDIT", spec.place("syscalls"), "these system calls are not blocked", mend)


def _check_element(element: Element, notes: Notes) -> None:
    if isinstance(element, (ProcessPath, FilePath, SyscallPath)):
        _check_path_rule(element, notes)
    elif isinstance(element, (ProcessDirectory, FileDirectory)):
        check_directory(element.directory, element.place("directory"), notes)
    elif isinstance(element, Source):
        _check_source(element, notes)
    elif isinstance(element, Preset):
        _check_preset(element, notes)
    elif isinstance(element, (Devices, DeviceRule)):
        _check_device(element, notes)
    if isinstance(element, SyscallRule):
        for word in element.syscalls:
            if word not in SYSCALLS:
                mend = "use its name on x86-64 in lower case"
                notes.add("KA-SYSCALL", element.place("syscalls"), f"system call {quoted(word)} is not known", mend)
    _check_words(element, notes)
    if getattr(element, "pts", None) is True:
        mend = "write pts: false to deny terminals, or leave it out"
        notes.add("KA-PTS", element.place("pts"), "pts: true does nothing", mend)


def _check_words(element: Element, notes: Notes) -> None:
    if isinstance(element, ProtocolRule):
        for word in listed(element.protocol) if element.protocol else ():
            if word not in _PROTOCOL_WORDS:
                what = f"protocol {quoted(word)} is not known"
                notes.add("KA-PROTOCOL", element.place("protocol"), what, f"use one of: {', '.join(PROTOCOLS)}")
    elif isinstance(element, CapabilityRule):
        for word in listed(element.capability) if element.capability else ():
            if word not in _CAPABILITY_WORDS:
                bare = word.lower().removeprefix("cap_")
                mend = f"write {bare}" if bare in CAPABILITIES else "write its name in lower case, as net_raw"
                notes.add("KA-CAPABILITY", element.place("capability"), f"{quoted(word)} is not known", mend)
    elif isinstance(element, DomainRule):
        notes.add("KA-DNS", element.place("domain"), "only plain DNS is seen", "block other resolvers too")


def _check_path_rule(rule: ProcessPath | FilePath | SyscallPath, notes: Notes) -> None:
    place = rule.place("path")
    if isinstance(rule, ProcessPath):
        mistyped = notes.has("KA-TYPE", place) or notes.has("KA-TYPE", rule.place("execname"))
        if not rule.path and not rule.execname and not mistyped:
            notes.add("KA-PATH-NONE", rule.at, "the rule names no program", "write path: or execname:")
        if rule.path and rule.execname:
            notes.add("KA-PATH-EXECNAME", place, "execname replaces this path", "keep one of the two")
        if "/" in rule.execname:
            mend = "write the bare name, or path: with the whole path"
            notes.add("KA-EXECNAME", rule.place("execname"), f"execname {quoted(rule.execname)}", mend)
        _check_arguments(rule, notes)
    if rule.path and not (isinstance(rule, SyscallPath) and rule.path.endswith("/")):
        check_path(rule.path, place, notes)


def _check_arguments(rule: ProcessPath, notes: Notes) -> None:
    place = rule.place("allowed_args")
    if len(rule.allowed_args) > MAX_ARGUMENTS:
        what = f"{len(rule.allowed_args)} allowed arguments"
        notes.add("KA-ARGUMENTS", place, what, f"list up to {MAX_ARGUMENTS}")
    for argument in rule.allowed_args:
        if len(argument.encode()) > MAX_ARGUMENT:
            what = f"argument {quoted(argument)} has {len(argument.encode())} bytes"
            notes.add("KA-ARGUMENTS", place, what, f"use up to {MAX_ARGUMENT}")


def check_path(path: str, place: Place, notes: Notes) -> None:
    """Note what is wrong with the path of one file or program."""
    if not path.startswith("/") or path.endswith("/"):
        if path.startswith("/"):
            mend = "take the last '/' away, or use matchDirectories with dir:"
        else:
            mend = "write the whole path from '/'"
        notes.add("KA-PATH", place, f"path {quoted(path)} is not the absolute path of a file", mend)
    size = len(path.encode())
    if size > MAX_PATH:
        notes.add("KA-PATH-LONG", place, f"the path has {size} bytes", "name the directory instead")
    _check_literal(path, place, notes)


def check_directory(directory: str, place: Place, notes: Notes) -> None:
    """Note what is wrong with a directory."""
    if not directory:
        return
    if not directory.startswith("/") or not directory.endswith("/"):
        mend = "write it from '/' and with '/' at the end"
        notes.add("KA-DIR", place, f"directory {quoted(directory)} does not start and end with '/'", mend)
    size = len(directory.encode())
    if size > MAX_DIRECTORY:
        notes.add(
            "KA-DIR-LONG", place, f"the directory has {size} bytes", f"name a parent of up to {MAX_DIRECTORY}"
        )
    _check_literal(directory, place, notes)


def _check_literal(path: str, place: Place, notes: Notes) -> None:
    parts = path.split("/")[1:-1] + path.split("/")[-1:]
    if "." in parts or ".." in parts or "//" in path:
        notes.add(
            "KA-PATH-DOTS",
            place,
            f"path {quoted(path)} has '.', '..' or '//' in it",
            "write the whole way, without them",
        )
    if _WILDCARD.search(path):
        mend = "name the directory with matchDirectories, or each file"
        notes.add("KA-PATH-WILDCARD", place, f"{quoted(path)} is taken letter by letter", mend)


def _check_source(source: Source, notes: Notes) -> None:
    directory = source.directory if isinstance(source, SyscallSource) else ""
    mistyped = notes.has("KA-TYPE", source.place("path")) or notes.has("KA-TYPE", source.place("directory"))
    if not source.path and not directory and not mistyped:
        notes.add("KA-SOURCE-EMPTY", source.at, "this source names no program", "write path: with the program")
    if source.path:
        check_path(source.path, source.place("path"), notes)


def _check_preset(preset: Preset, notes: Notes) -> None:
    if preset.name not in PRESETS:
        what = f"preset {quoted(preset.name)} is not known"
        notes.add("KA-PRESET", preset.place("name"), what, f"use one of: {', '.join(PRESETS)}")
    if preset.action not in PRESET_ACTIONS:
        what = f"preset action {quoted(preset.action)}"
        notes.add("KA-PRESET", preset.place("action"), what, "write Audit or Block")


def _check_device(element: Devices | DeviceRule, notes: Notes) -> None:
    if isinstance(element, Devices):
        mend = "set enableUSBDeviceHandler: true in kubearmor.yaml"
        notes.add("KA-DEVICE", element.at, "device rules need the USB handler", mend)
    elif element.level is not None and element.level < 1:
        notes.add("KA-DEVICE-LEVEL", element.place("level"), f"level {element.level}", "write 1 or more")


def _check_actions(spec: ContainerSpec | HostSpec, notes: Notes) -> None:
    """What an action does that the rule cannot, and what an Allow does beyond the rule."""
    allow: Element | None = None
    for rule, action in acting(spec):
        if isinstance(rule, (ProcessPattern, FilePattern)) and action != "Audit":
            mend = "write the paths or directories out"
            notes.add("KA-IGNORED-PATTERN", rule.at, f"pattern {quoted(rule.pattern)} is not enforced", mend)
        elif isinstance(rule, Rule) and action == "Allow":
            allow = allow or rule
    if allow is None:
        return
    if isinstance(spec, HostSpec):
        notes.add("KA-ALLOW-HOST", allow.at, "this makes the host a list of what is allowed", "use Block rules")
    else:
        mend = "set the default posture to block where it should stop anything"
        notes.add("KA-ALLOW", allow.at, "this makes the container a list of what is allowed", mend)
