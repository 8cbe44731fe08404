"""Namespaces are there while their process lives, and nothing is left afterwards, however it ended.

Each scenario runs in a process of its own: making namespaces moves a process for good. Without root it runs in a
user namespace where the kernel allows one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.simulate.ground import loopback_ground, reserved_port
from gateway.simulate.namespaces import Segment
from gateway.simulate.sockets import listener, own_namespace

PREAMBLE = """
import os, socket, subprocess, sys, time
from pathlib import Path
from gateway.simulate.child import command
from gateway.simulate.namespaces import Network, Segment, has_ipv6, private_folder

SEGMENTS = [
    Segment.of("near", ["10.77.1.1/24"] + ["fd77:1::1/64"] * has_ipv6(),
               ["10.77.1.11/24"] + ["fd77:1::11/64"] * has_ipv6()),
    Segment.of("far", ["10.77.2.1/24"] + ["fd77:2::1/64"] * has_ipv6(),
               ["10.77.2.2/24"] + ["fd77:2::2/64"] * has_ipv6()),
]
"""


def launcher() -> list[str]:
    """How to start a process that may make namespaces; skips where the kernel allows nobody to."""
    plain: list[str] = []
    own = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--"]
    for how in (plain, own) if os.geteuid() == 0 else (own,):
        if how and shutil.which("unshare") is None:
            continue
        probe = ["unshare", "--mount", "--net", "true"]
        if subprocess.run([*how, *probe], capture_output=True, check=False).returncode == 0:
            return how
    pytest.skip("neither root nor a user namespace here: no network namespaces can be made")


@contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    program = [*launcher(), sys.executable, "-c", PREAMBLE + script, *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def output_of(script: str, *arguments: str) -> str:
    with process(script, *arguments) as started:
        out, err = started.communicate(timeout=90)
    assert started.returncode == 0, err
    return out


def host_state() -> dict[str, object]:
    """Everything of the host that a site could leave a trace in."""
    names = Path("/run/netns")
    return {
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": sorted(Path("/proc/self/mountinfo").read_text().splitlines()),
        "netns": sorted(path.name for path in names.iterdir()) if names.is_dir() else None,
        "folders": [sorted(os.listdir(path)) for path in ("/mnt", "/media", "/srv") if Path(path).is_dir()],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


@pytest.mark.netns
def test_the_router_routes_both_families_between_own_addresses() -> None:
    script = """
with private_folder(), Network("router", SEGMENTS) as network:
    for family, client, server in [
        (socket.AF_INET, "10.77.1.11", "10.77.2.2"),
        (socket.AF_INET6, "fd77:1::11", "fd77:2::2"),
    ][: 1 + has_ipv6()]:
        with network.hosts["far"].socket(family, socket.SOCK_STREAM) as far:
            far.bind((server, 0))
            far.listen()
            far.settimeout(5)
            with network.hosts["near"].socket(family, socket.SOCK_STREAM) as near:
                near.settimeout(5)
                near.bind((client, 0))
                near.connect((server, far.getsockname()[1]))
                connection, peer = far.accept()
                connection.close()
                print(peer[0])
"""
    expected = ["10.77.1.11", "fd77:1::11"]
    assert output_of(script).split() == expected[: 1 + Path("/proc/sys/net/ipv6").is_dir()]


@pytest.mark.netns
def test_hosts_do_not_forward_and_do_not_see_the_own_namespace() -> None:
    script = """
with private_folder(), Network("router", SEGMENTS) as network:
    read = lambda host: host.call(Path("/proc/sys/net/ipv4/ip_forward").read_text).strip()
    print(read(network.router), read(network.hosts["near"]), read(network.hosts["far"]))
    links = network.hosts["near"].call(subprocess.check_output, ["ip", "-o", "link"], text=True)
    print(*sorted(line.split(":")[1].split("@")[0].strip() for line in links.splitlines()))
"""
    forwarding, links = output_of(script).splitlines()
    assert forwarding == "1 0 0"
    assert {"lo", "uplink0"} <= set(links.split())
    assert "eth0" not in links.split()


@pytest.mark.netns
def test_the_private_folder_is_empty_private_and_gone() -> None:
    script = """
with private_folder() as folder:
    print(folder, oct(folder.stat().st_mode & 0o777), len(list(folder.iterdir())))
    (folder / "secret").write_text("x")
print((folder / "secret").exists())
"""
    before = host_state()
    where, gone = output_of(script).splitlines()
    folder, mode, entries = where.split()
    assert (mode, entries, gone) == ("0o700", "0", "False")
    assert not (Path(folder) / "secret").exists()
    assert host_state() == before


@pytest.mark.netns
def test_nothing_is_left_after_the_parent_is_killed() -> None:
    script = """
with private_folder() as folder, Network("router", SEGMENTS) as network:
    (folder / "secret").write_text("x")
    child = subprocess.Popen(
        command([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
                network.router.descriptor),
        pass_fds=[network.router.descriptor], stdout=subprocess.PIPE, text=True, start_new_session=True,
    )
    child.stdout.readline()
    print(child.pid, folder, os.readlink(f"/proc/{child.pid}/ns/net"), os.readlink("/proc/self/ns/net"), flush=True)
    time.sleep(60)
"""
    before = host_state()
    with process(script) as parent:
        assert parent.stdout is not None
        pid, folder, inside, outside = parent.stdout.readline().split()
        assert inside != outside
        assert host_state() == before
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        wait_until_gone(int(pid))
    assert host_state() == before
    assert not (Path(folder) / "secret").exists()
    assert inside not in living_namespaces()


def wait_until_gone(pid: int) -> None:
    """Wait for the kernel to reap a killed orphan; the suite's own time limit bounds this."""
    while Path(f"/proc/{pid}").exists():
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return
        os.sched_yield()


def living_namespaces() -> set[str]:
    found = set()
    for process_folder in Path("/proc").glob("[0-9]*"):
        try:
            found.add(os.readlink(process_folder / "ns" / "net"))
        except OSError:
            continue
    return found


def test_a_child_that_was_orphaned_before_its_start_does_not_start() -> None:
    other = "1" if os.getpid() != 1 else "2"
    program = [sys.executable, "-m", "gateway.simulate.child", other, "-1", sys.executable, "-c", "print('ran')"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "parent has ended" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may make namespaces")
def test_without_rights_the_refusal_is_declared() -> None:
    script = "from gateway.simulate.ground import namespace_ground\nwith namespace_ground(): pass"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "NamespacesUnavailableError" in done.stderr


def test_segments_refuse_what_is_no_address() -> None:
    with pytest.raises(ValueError, match=r"10\.77"):
        Segment.of("near", ["10.77.1.256/24"], [])


def test_loopback_ground_gives_every_device_an_address_of_its_own() -> None:
    with loopback_ground("because") as ground:
        addresses: Sequence[str] = [address for plan in ground.devices for address in plan.addresses]
        assert len(addresses) == len(set(addresses)) == 5
        assert (ground.gate, ground.remarks[0]) == ("relay", "because")
        assert ground.folder.stat().st_mode & 0o777 == 0o700
        for entrance in ground.entrances:
            assert entrance.dial != entrance.server
    assert not ground.folder.exists()


def test_a_reserved_port_is_refused_until_somebody_listens_and_given_to_nobody_else() -> None:
    with reserved_port("127.0.77.1") as place:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((place.host, place.port), 5)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(tuple(place))
        with listener(own_namespace, place, 1), socket.create_connection((place.host, place.port), 5):
            pass
