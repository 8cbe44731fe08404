"""Network namespaces for tests: private ones in a forked child, wired by veth pairs, with flow probes.

Everything runs in one child process that is root of its own namespaces (by a user namespace where the test's user
is not root): nothing on the host changes, and whatever is left vanishes with the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import inspect
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from gateway.core.model import Instant

CLONE_NEWNS = 0x0002_0000  # linux/sched.h
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000  # linux/mount.h

#: Seconds after which a child that has not finished is killed: below the suite's own timeout of a test.
CHILD_SECONDS = 150.0
#: Seconds in which a packet that is let through has arrived, on a loaded machine.
ARRIVES = 30.0
#: Seconds of silence taken as "does not arrive".
SILENCE = 0.1

_SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_libc = ctypes.CDLL(None, use_errno=True)


class KernelClock:
    """The real clocks."""

    def now(self) -> Instant:
        return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


def tool(name: str) -> str:
    """Path of a program, also in /usr/sbin. Raises ``FileNotFoundError``."""
    path = shutil.which(name, path=_SEARCH)
    if path is None:
        raise FileNotFoundError(name)
    return path


def _call(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def enter_private_namespaces() -> None:
    """Make this single-threaded process root of new network and mount namespaces (and a user namespace)."""
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNET | CLONE_NEWNS
    _call(_libc.unshare(flags if uid == 0 else flags | CLONE_NEWUSER), "unshare")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _call(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate /")
    run("ip", "link", "set", "lo", "up")


def run(program: str, *arguments: str, stdin: str | None = None) -> str:
    """Run a program in the calling thread's namespace; returns what it prints."""
    done = subprocess.run(
        [tool(program), *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise OSError(f"{program} {' '.join(arguments)}: {done.stderr.strip()[:500]}")
    return done.stdout


def _child(body: Callable[[], object], write: int) -> None:
    status = 1
    # What the parent left behind is not the child's to finalise: the threads it belongs to are not here.
    gc.freeze()
    try:
        enter_private_namespaces()
        result = body()
        if inspect.isawaitable(result):
            asyncio.run(_await(result))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent shows it
        with os.fdopen(write, "w") as report:
            report.write(traceback.format_exc())
    finally:
        os._exit(status)


async def _await(result: Awaitable[object]) -> None:
    await result


def fork_in_namespaces(body: Callable[[], object], seconds: float = CHILD_SECONDS) -> str:
    """Run a function (or coroutine function) in a forked child in private namespaces; "" or its traceback.

    A child that has not finished after so many seconds is killed.
    """
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # the child goes on with one thread only and never returns into the test runner
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(body, write)
    os.close(write)
    try:
        text = _read_all(read, time.monotonic() + seconds)
        if text is None:
            os.kill(pid, signal.SIGKILL)
            text = f"not finished within {seconds:g} s\n"
    finally:
        os.close(read)
        _, status = os.waitpid(pid, 0)
    return text or ("" if status == 0 else f"ended with wait status {status}\n")


def _read_all(read: int, end: float) -> str | None:
    chunks: list[bytes] = []
    while select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
        chunk = os.read(read, 65_536)
        if not chunk:
            return b"".join(chunks).decode("utf-8", "replace")
        chunks.append(chunk)
    return None


@lru_cache(maxsize=1)
def unavailable() -> str:
    """Why tests in namespaces cannot run here; "" when they can."""
    try:
        for program in ("ip", "nft"):
            tool(program)
    except FileNotFoundError as error:
        return f"the program {error} is not installed"
    text = fork_in_namespaces(lambda: run("nft", "add table inet probe"))
    return text.strip().splitlines()[-1] if text else ""


def in_namespaces(body: Callable[[], object], seconds: float = CHILD_SECONDS) -> None:
    """Run a test's body in private namespaces; skip where none can be made; fail with the child's traceback."""
    reason = unavailable()
    if reason:
        pytest.skip(f"no network namespaces with nftables here: {reason}")
    text = fork_in_namespaces(body, seconds)
    if text:
        pytest.fail(f"in the namespaces:\n{text}", pytrace=False)


class Space:
    """One more network namespace of this process, kept by a file descriptor."""

    def __init__(self, name: str) -> None:
        self.name = name
        opened: list[int] = []

        def make() -> None:
            _call(_libc.unshare(CLONE_NEWNET), "unshare")
            opened.append(
                os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            )

        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        self._fd = opened[0]
        with self.entered():
            run("ip", "link", "set", "lo", "up")

    @property
    def fd(self) -> int:
        return self._fd

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace; sockets and processes made meanwhile stay in it."""
        home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call(_libc.setns(self._fd, CLONE_NEWNET), "setns")
            yield
        finally:
            _call(_libc.setns(home, CLONE_NEWNET), "setns")
            os.close(home)

    def ip(self, batch: str) -> None:
        """Run ``ip -batch`` in here."""
        with self.entered():
            run("ip", "-batch", "-", stdin=batch)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in here."""
        with self.entered():
            return socket.socket(family, kind, protocol)


def link(here: str, space: Space, there: str = "eth0") -> None:
    """A veth pair between the calling thread's namespace and ``space``."""
    holder = f"/proc/{os.getpid()}/fd/{space.fd}"
    run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", holder)


def sysctl(name: str, value: str) -> None:
    """Set one of the calling thread's namespace's net sysctls."""
    Path("/proc/sys/net", name).write_text(value)


def without_duplicate_detection() -> None:
    """Let IPv6 addresses of links made from now on be used at once, link-local ones too."""
    sysctl("ipv6/conf/default/accept_dad", "0")
    sysctl("ipv6/conf/default/dad_transmits", "0")


class Echo:
    """A TCP and a UDP echo server on one port of one address, and what they received."""

    def __init__(self, space: Space | None, address: str, port: int) -> None:
        self.received: list[bytes] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        make = socket.socket if space is None else space.socket
        self._tcp = make(family, socket.SOCK_STREAM)
        self._udp = make(family, socket.SOCK_DGRAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (self._tcp, self._udp):
            one.bind((address, port))
        self._tcp.listen()
        for serve in (self._serve_tcp, self._serve_udp):
            threading.Thread(target=serve, daemon=True).start()

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                self.received.append(data)
                connection.sendall(data)

    def _serve_udp(self) -> None:
        while True:
            data, peer = self._udp.recvfrom(65_536)
            self.received.append(data)
            with contextlib.suppress(OSError):
                self._udp.sendto(data, peer)


class Flow:
    """The client's end of one flow: what is sent comes back, or it does not."""

    _tokens = iter(range(1_000_000))

    def __init__(self, kind: str, space: Space | None, source: tuple[str, int], target: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        make = socket.socket if space is None else space.socket
        self.socket = make(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self.socket.bind(source)
        self.socket.settimeout(ARRIVES)
        self._target = target
        self._kind = kind

    def opens(self, seconds: float = ARRIVES) -> bool:
        """Whether a connection comes about (UDP: always)."""
        self.socket.settimeout(seconds)
        try:
            self.socket.connect(self._target)
        except TimeoutError:
            return False
        return True

    def echoes(self, seconds: float = ARRIVES, size: int = 32) -> bool:
        """Whether something newly sent comes back."""
        token = f"{next(self._tokens)}:".encode().ljust(size, b".")
        self.socket.send(token)
        end = time.monotonic() + seconds
        seen = b""
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                seen += self.socket.recv(65_536)
            except TimeoutError:
                break
            if token in seen:
                return True
        return False

    def close(self) -> None:
        self.socket.close()


def passes(kind: str, space: Space | None, source: str, target: tuple[str, int], size: int = 32) -> bool:
    """Whether a new flow comes about and echoes, given time enough."""
    flow = Flow(kind, space, (source, 0), target)
    try:
        return flow.opens() and flow.echoes(size=size)
    finally:
        flow.close()


def blocked(kind: str, space: Space | None, source: str, target: tuple[str, int], size: int = 32) -> bool:
    """Whether a new flow stays without an answer."""
    flow = Flow(kind, space, (source, 0), target)
    try:
        return not flow.opens(SILENCE) or not flow.echoes(SILENCE, size)
    finally:
        flow.close()


class Site:
    """client - gateway (the calling thread's namespace, routing) - server; each side IPv4 and IPv6.

    The client's side has ``10.77.1.11``, ``.12``, ``.99``, ``fd77:1::11``, ``::12``, ``::99`` and
    ``fd77:1:0:5::1``, ``::2``; the server's ``10.77.3.2``, ``fd77:3::2``. The gateway has ``.1`` and ``::1``.
    """

    def __init__(self) -> None:
        self.client, self.server = Space("client"), Space("server")
        without_duplicate_detection()
        for space in (self.client, self.server):
            with space.entered():
                without_duplicate_detection()
        link("devices", self.client)
        link("servers", self.server)
        sysctl("ipv4/ip_forward", "1")
        sysctl("ipv6/conf/all/forwarding", "1")
        run(
            "ip",
            "-batch",
            "-",
            stdin="addr add 10.77.1.1/24 dev devices\naddr add fd77:1::1/64 dev devices nodad\n"
            "addr add fd77:1:0:5::f/64 dev devices nodad\n"
            "addr add 10.77.3.1/24 dev servers\naddr add fd77:3::1/64 dev servers nodad\n"
            "link set devices up\nlink set servers up\n",
        )
        addresses = [f"10.77.1.{n}/24" for n in (11, 12, 99)]
        addresses += [f"fd77:1::{n}/64" for n in (11, 12, 99)] + [f"fd77:1:0:5::{n}/64" for n in (1, 2)]
        self._configure(self.client, addresses, "10.77.1.1", "fd77:1::1")
        self._configure(self.server, ["10.77.3.2/24", "fd77:3::2/64"], "10.77.3.1", "fd77:3::1")

    @staticmethod
    def _configure(space: Space, addresses: list[str], router4: str, router6: str) -> None:
        lines = [f"addr add {one} dev eth0{' nodad' if ':' in one else ''}" for one in addresses]
        lines += ["link set eth0 up", f"route add default via {router4}", f"route add ::/0 via {router6}"]
        space.ip("\n".join(lines) + "\n")
