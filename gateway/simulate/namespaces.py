"""Network namespaces without names: nothing on the host changes and nothing is left behind.

What lives here: namespaces held only by descriptors and by a thread of this process, the wires between them,
and a private mount namespace with a memory-backed folder. When this process ends, in whatever way, the last
reference goes and the kernel takes all of it down. What must not: knowledge of devices, verdicts or the story.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from gateway.simulate import linux

CALL_SECONDS = 15.0
"""The longest a step inside a namespace may take; on an idle machine the slowest takes 50 ms."""

FOLDER_SIZE = "256m"
"""Upper bound of the memory that the site's private folder (configuration, journal, log) may use."""

_EMPTY_FOLDERS = ("/mnt", "/media", "/srv")

P = ParamSpec("P")
T = TypeVar("T")

Interface = IPv4Interface | IPv6Interface


class NamespacesUnavailableError(Exception):
    """This process may not make namespaces here, or a tool for it is missing; the text says which."""


class Namespace:
    """A network namespace and the one thread of this process that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"netns-{name}")
        try:
            self.descriptor = self._thread.submit(_leave_for_new_namespace).result(CALL_SECONDS)
        except OSError:
            self._thread.shutdown()
            raise

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a short function inside the namespace and wait for its result."""
        return self._thread.submit(function, *args, **kwargs).result(CALL_SECONDS)

    def socket(self, family: int, kind: int) -> socket.socket:
        """A non-blocking socket that belongs to this namespace, wherever it is used from."""
        made = self.call(socket.socket, family, kind)
        made.setblocking(False)
        return made

    def ip(self, *commands: str, descriptors: Sequence[int] = ()) -> None:
        """Run ``ip`` commands in here. Raises ``NamespacesUnavailableError`` with what ``ip`` said."""
        self.call(_ip_batch, "\n".join(commands) + "\n", descriptors)

    def sysctl(self, key: str, value: int) -> None:
        """Set one of the kernel's per-namespace network settings, e.g. ``ipv4/ip_forward``."""
        self.call(Path("/proc/sys/net", key).write_text, f"{value}\n")

    def close(self) -> None:
        """Let go: the kernel removes the namespace once its sockets and processes are gone."""
        self._thread.shutdown()
        os.close(self.descriptor)


def _leave_for_new_namespace() -> int:
    linux.unshare(linux.CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _ip_batch(script: str, descriptors: Sequence[int]) -> None:
    # Started from the namespace's own thread, so the child is born inside the namespace.
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"],  # noqa: S607 - iproute2 lies in different folders on different systems
            input=script,
            text=True,
            capture_output=True,
            timeout=CALL_SECONDS,
            pass_fds=descriptors,
            check=False,
        )
    except FileNotFoundError as error:
        msg = "the ip command (package iproute2) is not installed"
        raise NamespacesUnavailableError(msg) from error
    if done.returncode != 0:
        msg = f"ip failed: {done.stderr.strip()[:300]}"
        raise NamespacesUnavailableError(msg)


@dataclass(frozen=True)
class Segment:
    """One wire of the site: the router's addresses on it, and the addresses of what stands at its far end."""

    name: str  # at most 13 characters: the router's interface is named after it
    router: tuple[Interface, ...]
    host: tuple[Interface, ...]

    @classmethod
    def of(cls, name: str, router: Sequence[str], host: Sequence[str]) -> Segment:
        """Build from texts such as ``10.77.1.1/24``."""
        return cls(name, tuple(map(ip_interface, router)), tuple(map(ip_interface, host)))


class Network:
    """A router and the namespaces wired to it, one per segment.

    Raises ``NamespacesUnavailableError`` when the kernel refuses. Context manager; also taken down when the
    process dies.
    """

    def __init__(self, router: str, segments: Sequence[Segment]) -> None:
        self._made: list[Namespace] = []
        try:
            self.router = self._make(router)
            self.hosts = {segment.name: self._wire(segment) for segment in segments}
        except OSError as error:
            self.close()
            raise NamespacesUnavailableError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _make(self, name: str) -> Namespace:
        made = Namespace(name)
        self._made.append(made)
        made.sysctl("ipv4/ip_forward", int(not self._made[1:]))
        if has_ipv6():
            made.sysctl("ipv6/conf/all/disable_ipv6", 0)
            made.sysctl("ipv6/conf/default/disable_ipv6", 0)
            made.sysctl("ipv6/conf/all/forwarding", int(not self._made[1:]))
            # Addresses here are ours alone: duplicate detection would only delay their use by a second.
            made.sysctl("ipv6/conf/default/accept_dad", 0)
        made.ip("link set lo up")
        return made

    def _wire(self, segment: Segment) -> Namespace:
        host = self._make(segment.name)
        near, far = f"{segment.name}0", "uplink0"
        self.router.ip(
            f"link add name {near} type veth peer name {far} netns /proc/self/fd/{host.descriptor}",
            *(_add(address, near) for address in segment.router),
            f"link set {near} up",
            descriptors=[host.descriptor],
        )
        host.ip(
            *(_add(address, far) for address in segment.host),
            f"link set {far} up",
            *(f"route add default via {address.ip}" for address in segment.router),
        )
        return host

    def close(self) -> None:
        """Let every namespace go."""
        while self._made:
            self._made.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _add(address: Interface, link: str) -> str:
    nodad = " nodad" if address.version == 6 else ""
    return f"address add {address} dev {link}{nodad}"


def has_ipv6() -> bool:
    """Whether this kernel speaks IPv6 at all."""
    return Path("/proc/sys/net/ipv6").is_dir()


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give this process a mount namespace of its own and in it an empty memory-backed folder, mode 0700.

    Must be entered before threads are started: the calling thread alone moves, and what it starts later; it
    never moves back. No other process sees the folder, and it is gone with the last process inside. An empty
    folder of the system serves as the place, so not even a name is left on disk; where there is none, a fresh
    one in the temporary folder does. Raises ``NamespacesUnavailableError``.
    """
    made = None
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.make_mounts_private()
        folder = next(filter(_is_empty_folder, map(Path, _EMPTY_FOLDERS)), None)
        if folder is None:
            folder = made = Path(tempfile.mkdtemp(prefix="ragate-"))
        linux.mount_tmpfs(folder, mode=0o700, size=FOLDER_SIZE)
    except OSError as error:
        if made is not None:
            made.rmdir()
        raise NamespacesUnavailableError(str(error)) from error
    try:
        yield folder
    finally:
        linux.detach_mount(folder)
        if made is not None:
            made.rmdir()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
