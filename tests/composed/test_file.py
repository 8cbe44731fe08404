"""The compose file, the Dockerfile and the Prometheus configuration, checked as far as can be without an engine.

The rules, by the Compose specification (compose-spec/compose-spec, 05-services.md, 06-networks.md, 07-volumes.md):

1. Only known top-level elements and known keys of services, networks, volumes; names of their allowed form.
2. A service has an image with a fixed tag, and ours can be built: context, Dockerfile and every COPY source exist
   and reach the build.
3. Everything referred to exists: services in ``depends_on`` and ``network_mode``, networks, volumes, host paths;
   every network and volume is used; nobody waits in a circle; ``service_completed_successfully`` is asked only of
   what ends.
4. ``network_mode`` and ``networks`` exclude each other; only holders of a namespace have networks.
5. Addresses are unique, within their network's subnets, not the set-aside one, and those of the generated settings.
6. One container alone stands on two networks and forwards: the gateway.
7. Nothing is privileged, shares a namespace of the host or publishes a port; every capability is dropped, and only
   NET_ADMIN is added, only to root, only where nftables or routes are set.
8. The root is read-only; what is mounted for writing is a named volume or tmpfs, each below a folder of the image.
9. Commands are our programs with arguments that these take.
10. Health checks are there for what serves, and are lists, not shell text.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.simulate import plan, prepare
from gateway.simulate.__main__ import CONTROL, parser
from tests.composed.document import DOCKERFILE, FILE, OUR_IMAGE, ROOT, in_order, memory, mounts, read, services

DOCUMENT = read()
SERVICES = services(DOCUMENT)
OURS = {name: service for name, service in SERVICES.items() if service["image"] == OUR_IMAGE}
HOLDERS = {name for name, service in SERVICES.items() if "networks" in service}

TOP = {"name", "services", "networks", "volumes"}
SERVICE = {
    *("build", "cap_add", "cap_drop", "command", "depends_on", "group_add", "healthcheck", "image", "init"),
    *("logging", "mem_limit", "network_mode", "networks", "pids_limit", "read_only", "restart", "security_opt"),
    *("stop_grace_period", "sysctls", "tmpfs", "user", "volumes"),
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
HEALTH = {"test", "interval", "timeout", "start_period", "retries"}
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")
DURATION = re.compile(r"\d+(?:us|ms|s|m|h)")
IMAGE = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*")

every_service = pytest.mark.parametrize("name", SERVICES)


def test_only_known_elements_and_names_of_their_form() -> None:
    assert {key for key in DOCUMENT if not key.startswith("x-")} == TOP
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", DOCUMENT["name"])
    for kind in ("services", "networks", "volumes"):
        assert all(NAME.fullmatch(name) for name in DOCUMENT[kind])
    assert all(volume is None for volume in DOCUMENT["volumes"].values())
    for network in DOCUMENT["networks"].values():
        assert set(network) == {"driver", "internal", "enable_ipv6", "ipam"}
        assert set(network["ipam"]) == {"config"}


@every_service
def test_a_service_has_known_keys_of_their_types(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= SERVICE
    assert re.fullmatch(r"\d+:\d+", service["user"])
    assert all(isinstance(word, str) and word for word in service["command"])
    assert service["restart"] in ("no", "unless-stopped"), "a bare no is false in YAML"
    assert re.fullmatch(r"\d+m", service["mem_limit"])
    assert isinstance(service["pids_limit"], int)
    assert DURATION.fullmatch(service.get("stop_grace_period", "1s"))
    assert all(isinstance(key, str) for key in service.get("sysctls", {}))
    health = service.get("healthcheck", {})
    assert set(health) <= HEALTH
    assert all(DURATION.fullmatch(value) for key, value in health.items() if key not in ("test", "retries"))
    assert IMAGE.fullmatch(service["image"]), "a fixed tag, never latest"


def test_what_serves_has_a_health_check_and_no_shell_stands_in_it() -> None:
    serving = {"gateway", "agent", "prometheus", *prepare.PARTIES}
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == serving
    assert all(SERVICES[name]["healthcheck"]["test"][0] == "CMD" for name in serving)


def test_references_lead_somewhere_and_nothing_is_left_over() -> None:
    assert len(in_order(DOCUMENT)) == len(SERVICES), "nobody waits in a circle"
    used = Counter[str]()
    for name, service in SERVICES.items():
        for other, needs in service.get("depends_on", {}).items():
            assert needs["condition"] in CONDITIONS
            if needs["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no", f"{name} waits for {other}, which never ends"
        mode = service.get("network_mode", "")
        assert bool(mode) is ("networks" not in service)
        assert mode in ("", "none") or mode.removeprefix("service:") in HOLDERS
        if mode.startswith("service:"):
            assert mode.removeprefix("service:") in service["depends_on"], "its namespace must be there first"
        used.update(list(service.get("networks", ())))
        for source, _, readonly in mounts(service):
            if source.startswith("."):
                assert (FILE.parent / source).resolve().is_file()
                assert readonly
            else:
                used[source] += 1
    assert set(used) == {*DOCUMENT["networks"], *DOCUMENT["volumes"]}


@every_service
def test_least_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["read_only"] is True
    added = service.get("cap_add", [])
    expected = ["NET_ADMIN"] if name in ("gateway", "agent") or name.endswith("-routes") else []
    assert added == expected
    root = service["user"] == "0:0"
    assert root is bool(added or name == "prepare"), "an engine gives added capabilities to root alone"
    if added:
        explained = FILE.read_text().split("cap_add: [NET_ADMIN]")[1:]
        assert all(text.startswith(" # ") for text in explained), "each says what for"


def test_the_gateway_alone_stands_on_both_networks_and_forwards() -> None:
    assert {name: len(SERVICES[name]["networks"]) for name in HOLDERS} == {
        "gateway-host": 2,
        **dict.fromkeys(("devices-host", "verifier-host", "appserver-host"), 1),
    }
    forwarding = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
    assert {name: s["sysctls"] for name, s in SERVICES.items() if "sysctls" in s} == {"gateway-host": forwarding}
    for network in DOCUMENT["networks"].values():
        assert (network["driver"], network["internal"], network["enable_ipv6"]) == ("macvlan", True, True)
        assert "driver_opts" not in network, "no parent: the host has no part in it"


def test_addresses_are_within_their_networks_and_those_of_the_settings() -> None:
    seen = Counter[str]()
    for name in HOLDERS:
        for network, at in SERVICES[name]["networks"].items():
            four, six = DOCUMENT["networks"][network]["ipam"]["config"]
            for address, one in ((at["ipv4_address"], four), (at["ipv6_address"], six)):
                assert ip_address(address) in ip_network(one["subnet"])
                assert ip_network(one["subnet"]).prefixlen == plan.PREFIX[ip_address(address).version]
                assert address != one["gateway"], "set aside by the engine"
                seen[address] += 1
    assert set(seen.values()) == {1}

    def of(holder: str, network: str) -> tuple[str, ...]:
        return tuple(SERVICES[holder]["networks"][network].values())

    assert of("gateway-host", "devices") == plan.GATEWAY_AT_DEVICES
    assert of("gateway-host", "core") == plan.GATEWAY_AT_CORE
    assert of("appserver-host", "core") == plan.APPSERVER
    assert of("verifier-host", "core") == plan.VERIFIER
    assert of("devices-host", "devices") == plan.DEVICES[0].addresses
    others = [address for each in plan.DEVICES[1:] for address in each.addresses]
    ranges = [ip_network(one["subnet"]) for one in DOCUMENT["networks"]["devices"]["ipam"]["config"]]
    assert all(any(ip_address(address) in each for each in ranges) for address in others)
    assert not set(others) & set(seen)


def test_ports_are_those_of_the_public_demo() -> None:
    assert plan.DOOR.port == 8000
    assert plan.ATTESTATION_PORT == 8100
    assert {each.port for each in plan.entrances()} == {8001}
    assert not [name for name, service in SERVICES.items() if {"ports", "expose"} & set(service)]


def test_writing_is_possible_only_where_settings_say_that_something_is_kept() -> None:
    folders = re.search(r"mkdir -p (.+)", DOCKERFILE.read_text())
    assert folders is not None
    known = folders[1].split()
    for name, service in OURS.items():
        places = [target for _, target, _ in mounts(service)] + [target for target, _ in memory(service)]
        assert all(any(place == at or place.startswith(f"{at}/") for at in known) for place in places)
        writable = {target for _, target, readonly in mounts(service) if not readonly}
        if name in ("gateway", "agent"):
            assert writable == {prepare.STATE}
        elif name == "prepare":
            parties = {prepare.GATEWAY, prepare.AGENT, prepare.AUTHORITY, *prepare.PARTIES}
            assert writable == {f"/srv/site/{party}" for party in parties}
        else:
            assert not writable
    assert dict(memory(SERVICES["gateway"])).keys() == {str(Path(prepare.SOCKET).parent)}
    for party in prepare.PARTIES:
        ((target, options),) = memory(SERVICES[party])
        assert target == str(CONTROL.parent)
        assert f"{options['uid']}:{options['gid']}" == SERVICES[party]["user"]
    readers = SERVICES["prepare"]["command"][-1]
    assert {SERVICES[party]["user"].split(":")[1] for party in prepare.PARTIES} == {readers}
    assert SERVICES["prepare"]["group_add"] == [readers]


def test_each_party_has_its_own_files_and_nobody_elses() -> None:
    made = {target.rpartition("/")[2]: source for source, target, _ in mounts(SERVICES["prepare"])}
    read_by = {name: {s for s, _, ro in mounts(service) if ro} for name, service in OURS.items()}
    for party in ("gateway", "agent", *prepare.PARTIES):
        assert read_by[party] == {made[party]}
    holding = [name for name, service in OURS.items() for source, _, _ in mounts(service) if source == "authority"]
    assert holding == ["prepare"]


@pytest.mark.parametrize("name", OURS)
def test_commands_are_ours_and_take_these_arguments(name: str) -> None:
    tests = [OURS[name].get("healthcheck", {}).get("test", ["CMD"])[1:]]
    for program, *words in [OURS[name]["command"], *filter(None, tests)]:
        if program == "ragate":
            done = CliRunner().invoke(app, [*words, "--help"], env={"NO_COLOR": "1"})
            assert done.exit_code == 0, done.output
            assert all(re.search(rf"{word}\b", done.output) for word in words if word.startswith("--"))
        elif program == "sleep":
            assert words == ["infinity"]
        elif words[0] == "-c":
            compile(words[1], "healthcheck", "exec")
            assert f"http://{plan.CONSOLE}/readyz" in words[1]
        else:
            assert (program, *words[:2]) == ("python", "-m", "gateway.simulate")
            parser().parse_args(words[2:])


# --- the image --------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], shlex.split(line)[1:]) for line in text.splitlines() if line.strip()]


def test_the_image_is_built_from_what_is_there() -> None:
    for service in OURS.values():
        build = service["build"]
        assert (FILE.parent / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] == DOCKERFILE
    ignored = (DOCKERFILE.parent / f"{DOCKERFILE.name}.dockerignore").read_text().split("\n")
    reaching = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    sources = [
        word
        for kind, words in instructions()
        if kind == "COPY" and not words[0].startswith("--")
        for word in words[:-1]
    ]
    assert sorted(sources) == sorted(reaching)
    assert all((ROOT / source).exists() for source in sources)
    build_needs = {"pyproject.toml", "README.md", "LICENSE", "gateway", "policies", "requirements.lock"}
    assert build_needs == set(sources)
    assert not any(fnmatch.fnmatch(".git", pattern) for pattern in reaching)


def test_the_image_has_pinned_bases_hashes_and_no_root() -> None:
    found = instructions()
    bases = [words[0] for kind, words in found if kind == "FROM"]
    assert len(set(bases)) == 1, "stages of one base: what is compiled in one runs in the other"
    assert all(IMAGE.fullmatch(base) for base in bases)
    steps = [" ".join(words) for kind, words in found if kind == "RUN"]
    fetching = [step for step in steps if re.search(r"pip (download|install|wheel)", step)]
    assert "--require-hashes" in fetching[0]
    assert "--no-index" not in fetching[0]
    pips = [each for step in fetching[1:] for each in step.split("&&") if "/pip " in each]
    assert pips
    assert all("--no-index" in each for each in pips), "after the first step nothing is fetched"
    text = DOCKERFILE.read_text()
    assert not re.search(r"https?://|--index-url|--extra-index-url|curl |wget |apt", text)
    assert not re.search(r"--index-url|https?://", (ROOT / "requirements.lock").read_text())
    last = {kind: words for kind, words in found if kind in ("USER", "STOPSIGNAL")}
    assert last == {"USER": ["10001:10001"], "STOPSIGNAL": ["SIGTERM"]}
    lock = (ROOT / "requirements.lock").read_text()
    assert re.search(r"^hatchling==", lock, re.MULTILINE), "the build's own tools are locked, too"
    assert re.search(r"^editables==", lock, re.MULTILINE)


def test_the_tag_is_the_projects_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert OUR_IMAGE.endswith(f":{version[1]}")
    assert f"--tag {OUR_IMAGE}" in DOCKERFILE.read_text()


# --- Prometheus -------------------------------------------------------------------------------------------------


def test_prometheus_reads_the_rules_and_scrapes_the_console() -> None:
    service = SERVICES["prometheus"]
    mounted = {target: source for source, target, _ in mounts(service)}
    options: dict[str, str] = dict(word.removeprefix("--").split("=", 1) for word in service["command"])
    config: dict[str, Any] = yaml.safe_load((FILE.parent / mounted[options["config.file"]]).read_text())
    for rules in config["rule_files"]:
        assert (FILE.parent / mounted[rules]).resolve() == ROOT / "docs" / "prometheus-rules.yaml"
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "ragate", "the rules name this job"
    assert job["static_configs"] == [{"targets": [str(plan.CONSOLE)]}]
    assert service["network_mode"] == SERVICES["gateway"]["network_mode"], "the console listens on loopback"
    assert mounted[options["storage.tsdb.path"]] in DOCUMENT["volumes"]
    assert options["web.listen-address"].startswith("127.0.0.1:")
