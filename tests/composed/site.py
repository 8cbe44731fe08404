"""A small interpreter of our compose file: its services as processes in namespaces wired like its networks.

The commands, users, capabilities, mounts, addresses and sysctls are those of the file. Networks are bridges in
namespaces of their own, without an address of any host on them, as macvlan networks without a parent are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.simulate.child import command
from tests.composed.container import Container
from tests.composed.document import OUR_IMAGE, ROOT, in_order, memory, mounts, read, services, space_of
from tests.netns import Space, run, sysctl, tool, without_duplicate_detection

#: Seconds in which something that must happen has happened, on a machine that many share.
PATIENCE = 150.0


def can_change_users() -> bool:
    """Whether processes of other users can run this very code here: not in a user namespace with one user, and not
    where the repository is closed to others."""
    if (
        len(Path("/proc/self/uid_map").read_text().split()) != 3
        or "4294967295" not in Path("/proc/self/uid_map").read_text()
    ):
        return False
    nobody = Container([sys.executable, "-c", "import gateway.simulate.roles"], user=(10001, 10001))
    done = subprocess.run(nobody.confined(nobody.command), cwd="/", capture_output=True, timeout=PATIENCE)
    return done.returncode == 0


class Composed:
    """The site of the compose file. Context manager: whatever runs is ended."""

    def __init__(self, folder: Path) -> None:
        self.document = read()
        self.services = {n: s for n, s in services(self.document).items() if s["image"] == OUR_IMAGE}
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.containers: dict[str, Container] = {}
        self.users = can_change_users()
        without_duplicate_detection()
        self._switches = {name: self._switch(name) for name in self.document["networks"]}
        self.spaces = {n: self._host(n, s) for n, s in self.services.items() if "networks" in s}
        for volume in self.document["volumes"]:
            (folder / "volumes" / volume).mkdir(parents=True, mode=0o755)

    def _switch(self, name: str) -> Space:
        switch = Space(name)
        switch.ip("link add bridge0 type bridge\nlink set bridge0 up\n")
        return switch

    def _host(self, name: str, service: Mapping[str, Any]) -> Space:
        host = Space(name)
        with host.entered():
            without_duplicate_detection()
        for number, (network, at) in enumerate(service["networks"].items()):
            switch, link, port = self._switches[network], f"eth{number}", f"p{len(self.processes)}-{name}"[:15]
            with switch.entered():
                holder = f"/proc/{os.getpid()}/fd/{host.fd}"
                run("ip", "link", "add", port, "type", "veth", "peer", "name", link, "netns", holder)
                run("ip", "link", "set", port, "master", "bridge0", "up")
            ranges = [one["subnet"].rpartition("/")[2] for one in self._ranges(network)]
            host.ip(
                f"addr add {at['ipv4_address']}/{ranges[0]} dev {link}\n"
                f"addr add {at['ipv6_address']}/{ranges[1]} dev {link} nodad\nlink set {link} up\n"
            )
        with host.entered():
            for key, value in {"net.ipv4.ip_forward": 0, **service.get("sysctls", {})}.items():
                sysctl(key.removeprefix("net.").replace(".", "/"), str(value))
        return host

    def _ranges(self, network: str) -> Sequence[Mapping[str, str]]:
        found: Sequence[Mapping[str, str]] = self.document["networks"][network]["ipam"]["config"]
        return found

    # --- containers ---------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start everything in the order that the file demands."""
        for name in in_order(self.document):
            if name not in self.services:
                continue
            for other, needs in self.services[name].get("depends_on", {}).items():
                if needs["condition"] == "service_completed_successfully":
                    code = self.processes[other].wait(PATIENCE)
                    assert code == 0, f"{other} ended with {code}:\n{self.log(other)}"
            self.start(name)

    def start(self, name: str) -> None:
        """Start one service."""
        container = self.containers[name] = self._container(self.services[name])
        space = self.spaces.get(space_of(name, self.services[name])) or Space("none")
        with space.entered(), self._log_file(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command(container.arguments()), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _container(self, service: Mapping[str, Any]) -> Container:
        user, group = map(int, service["user"].split(":"))
        groups = tuple(map(int, service.get("group_add", ())))
        options = {}
        for target, given in memory(service):
            kept = given if self.users else {k: v for k, v in given.items() if k not in ("uid", "gid")}
            options[target] = ",".join(f"{key}={value}" for key, value in kept.items())
        return Container(
            self._command(service["command"]),
            capabilities=service.get("cap_add", ()),
            user=(user, group) if self.users else None,
            groups=groups,
            binds=[(str(self.folder / "volumes" / source), target, ro) for source, target, ro in mounts(service)],
            tmpfs=list(options.items()),
            environment={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        )

    def _command(self, written: Sequence[str]) -> list[str]:
        """The file's command, with this environment's programs, and without a group that cannot be given here."""
        programs = {"python": [sys.executable], "ragate": [sys.executable, "-m", "gateway"]}
        words = [*programs.get(written[0], [tool(written[0])] if written[0] == "sleep" else []), *written[1:]]
        assert len(words) >= len(written), f"an unknown program: {written[0]}"
        if not self.users and "--readers" in words:
            at = words.index("--readers")
            del words[at : at + 2]
        return words

    def inside(self, name: str, written: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in a running container, as ``docker compose exec`` and health checks do."""
        target = str(self.processes[name].pid)
        confined = self.containers[name].confined(self._command(written))
        return subprocess.run(
            [tool("nsenter"), "--target", target, "--mount", "--net", "--wd=/srv", "--", *confined],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def ask(self, name: str, *words: str) -> dict[str, Any]:
        """What a simulated party answers."""
        done = self.inside(name, ["python", "-m", "gateway.simulate", *words])
        assert done.returncode == 0, f"{name} {words}: {done.stderr}\n{self.log(name)}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check is content. A service that has ended fails the test."""
        ended = self.processes[name].poll()
        assert ended is None, f"{name} ended with {ended}:\n{self.log(name)}"
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.inside(name, test).returncode == 0

    def log(self, name: str) -> str:
        """What it has written."""
        return self._log_file(name).read_text(errors="replace")

    def logs(self) -> str:
        """The end of everybody's."""
        ends = {name: process.poll() for name, process in self.processes.items()}
        return "\n".join(f"--- {name}, exit code {ends[name]}\n{self.log(name)[-2000:]}" for name in ends)

    def _log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def stop(self, name: str) -> int:
        """As the engine ends a container: SIGTERM, and patience; its exit code."""
        process = self.processes[name]
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE)

    def until(self, what: Any, says: Any = lambda: "") -> None:
        """Wait until ``what`` holds; a failure shows what was seen, and the logs."""
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, f"not within {PATIENCE:g} s: {says()}\n{self.logs()}"
            time.sleep(0.2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(PATIENCE)
