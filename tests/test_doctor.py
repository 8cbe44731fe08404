"""The doctor: every row of the table finds what it is for, in other people's own files, and says so when it
cannot."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from textwrap import dedent

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner, Result

from gateway.cli.commands import app
from gateway.config import load
from gateway.config.doctor import CHECKS, Evidence, Places, Report, examine, gather
from gateway.config.doctor.evidence import Listening, Pem, listening
from gateway.core.errors import ConfigError
from tests.e2e.installed import Installed
from tests.sediment.recorded import published_hmac_keys

NOW = 1_795_283_400.0
FIXTURES = Path(__file__).parent / "fixtures" / "sediment"
NAMES = [check.name for check in CHECKS]

SHIPPED = """\
verifier id:RAP_Server
verifier incoming:tcp:127.0.0.1:8100

auth_enabled true
passport_period 86400
pass_thru_enabled true
"""
MENDED = SHIPPED.replace("86400", "600").replace("pass_thru_enabled true", "pass_thru_enabled false")
COMPOSE = """\
services:
  verifier:
    image: sediment/verifier
    privileged: true
    ports: ["8100", "8102:8102"]
  kubearmor:
    image: kubearmor/kubearmor:stable
    privileged: true
    ports: ["127.0.0.1:32767:32767"]
"""
COMPOSED = """\
services:
  verifier:
    image: sediment/verifier
    ports: ["10.77.2.2:8100:8100", "127.0.0.1:8101-8102:8101-8102"]
"""
KUBEARMOR = "gRPC: '32767'\ntlsEnabled: false\ndebug: false\n"
KUBEARMORED = "grpc: '32767'\nTLSEnabled: true\nDebug: true\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def at_home(evidence: Evidence) -> Evidence:
    """Without what the machine of the test contributes."""
    return replace(evidence, sockets=None, synchronised=None)


def seen(folder: Path, *, board: str = "", compose: str = "", kubearmor: str = "") -> Evidence:
    places = Places(
        (written(folder / "RAP_Server", board),) if board else (),
        (written(folder / "compose.yaml", compose),) if compose else (),
        (written(folder / "kubearmor.yaml", kubearmor),) if kubearmor else (),
    )
    return at_home(gather(places, None, NOW))


def sockets(*pairs: tuple[str, int]) -> Evidence:
    return Evidence(NOW, sockets=tuple(Listening(ip_address(address), port) for address, port in pairs))


def published_database(folder: Path) -> Evidence:
    shutil.copy(FIXTURES / "sediment.db", folder / "sediment.db")
    return at_home(gather(Places((folder / "sediment.db",)), None, NOW * 2))


#: For every check: evidence in which it finds something, and evidence in which it finds nothing.
CASES: dict[str, tuple[Callable[[Path], Evidence], Callable[[Path], Evidence]]] = {
    "pass-through": (lambda at: seen(at, board=SHIPPED), lambda at: seen(at, board=MENDED)),
    "published-keys": (published_database, lambda at: seen(at, board=MENDED)),
    "unsigned-feed": (lambda _: sockets(("0.0.0.0", 8101)), lambda _: sockets(("127.0.0.1", 8101))),
    "kubearmor-port": (lambda _: sockets(("::", 32767)), lambda _: sockets(("127.0.0.1", 32767))),
    "privileged-container": (lambda at: seen(at, compose=COMPOSE), lambda at: seen(at, compose=COMPOSED)),
    "random-ports": (lambda at: seen(at, compose=COMPOSE), lambda at: seen(at, compose=COMPOSED)),
    "passport-life": (lambda at: seen(at, board=SHIPPED), lambda at: seen(at, board=MENDED)),
    "clocks": (lambda _: Evidence(NOW, synchronised=False), lambda _: Evidence(NOW, synchronised=True, stale=0)),
    "kubearmor-debug": (lambda at: seen(at, kubearmor=KUBEARMOR), lambda at: seen(at, kubearmor=KUBEARMORED)),
}


def subjects(report: Report, name: str) -> list[str]:
    return [each.subject for each in report.diagnoses if each.check == name]


def what(report: Report, name: str) -> list[str]:
    return [each.what for each in report.diagnoses if each.check == name]


def test_every_check_has_a_case_and_nothing_else_has() -> None:
    assert list(CASES) == NAMES
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", CASES)
def test_each_check_finds_what_it_is_for(folder: Path, name: str) -> None:
    report = examine(CASES[name][0](folder))
    assert subjects(report, name)
    (found, *_) = (each for each in report.diagnoses if each.check == name)
    assert len(found.why) > 40
    assert len(found.mend) > 10
    without = examine(CASES[name][0](folder), [check for check in CHECKS if check.name != name])
    assert not subjects(without, name)


@pytest.mark.parametrize("name", CASES)
def test_each_check_is_content_when_it_is_mended(folder: Path, name: str) -> None:
    report = examine(CASES[name][1](folder))
    assert not subjects(report, name)
    assert name in report.clean


def test_without_evidence_every_check_says_what_it_needs() -> None:
    report = examine(Evidence(NOW))
    assert (report.diagnoses, report.clean) == ((), ())
    assert [name for name, _ in report.unexamined] == NAMES
    assert all("--" in needs for _, needs in report.unexamined)


# --- SEDIMENT's files ---------------------------------------------------------------------------------------------


def test_a_folder_as_sediment_ships_it(folder: Path) -> None:
    written(folder / "configs/boards/RAP_Server", SHIPPED)
    key = published_hmac_keys()
    device = next(iter(key.values())).hex()
    written(
        folder / "configs/boards/Ubuntu-001",
        f"prover id:Ubuntu-001\npass_thru_enabled true\npassport_period 86400\nauth_key {device}\n",
    )
    (folder / "data").mkdir()
    shutil.copy(FIXTURES / "sediment.db", folder / "data" / "sediment.db")
    shutil.copy(FIXTURES / "verifier-public-key.pem", folder / "data" / "verify_key.pem")
    written(folder / "data" / "README.md", "not looked at")
    before = (folder / "data" / "sediment.db").read_bytes()
    report = examine(at_home(gather(Places((folder,)), None, NOW * 2)))
    assert subjects(report, "pass-through") == [str(folder / "configs/boards/RAP_Server")]
    assert subjects(report, "passport-life") == [str(folder / "configs/boards/RAP_Server")]
    assert set(subjects(report, "published-keys")) == {
        str(folder / "data" / "sediment.db"),
        str(folder / "data" / "verify_key.pem"),
        str(folder / "configs/boards/Ubuntu-001"),
    }
    assert (folder / "data" / "sediment.db").read_bytes() == before
    assert device not in str(report)


def test_keys_of_ones_own_are_content(folder: Path) -> None:
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pems = (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    report = examine(Evidence(NOW, pems=tuple(Pem(Path("k"), data) for data in pems)))
    assert "published-keys" in report.clean


@pytest.mark.parametrize("word", ["true", "True", "1"])
def test_every_way_of_writing_true(folder: Path, word: str) -> None:
    report = examine(seen(folder, board=f"pass_thru_enabled {word}\n"))
    assert subjects(report, "pass-through")


@pytest.mark.parametrize("text", ["", "passport_period\n", "passport_period never\n", "passport_period -1\n"])
def test_a_period_that_is_none_is_no_finding(folder: Path, text: str) -> None:
    assert not subjects(examine(seen(folder, board=text or "\n")), "passport-life")


def test_a_verifier_whose_clock_is_ahead(folder: Path) -> None:
    path = folder / "sediment.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE Device(id TEXT, proverEndpoint TEXT, authKey BLOB, lastAttestation INT)")
        made.execute("INSERT INTO Device VALUES ('cam-1', 'tcp:10.0.0.1:8899', NULL, ?)", (int(NOW) + 90,))
        made.commit()
    report = examine(at_home(gather(Places((path,)), None, NOW)))
    assert what(report, "clocks") == ["its newest attestation lies 90 s in the future"]


# --- containers and ports -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "chosen"),
    [
        ('["8100"]', True),
        ("[8100]", True),
        ('["10.77.2.2::8100"]', True),
        ('["0:8100"]', True),
        ("[{target: 8100}]", True),
        ('["9000-9010:8100"]', True),
        ('["8100:8100/udp"]', False),
        ('["[::1]:8100:8100"]', False),
        ('[{target: 8100, published: "8100", host_ip: 10.77.2.2}]', False),
        ('["8100-8102:8100-8102"]', False),
        ("[]", False),
        ("none", False),
        ("[x:y:z]", False),
    ],
)
def test_ports_that_the_engine_chooses(folder: Path, ports: str, chosen: bool) -> None:
    report = examine(seen(folder, compose=f"services: {{verifier: {{ports: {ports}}}}}\n"))
    assert bool(subjects(report, "random-ports")) is chosen


@pytest.mark.parametrize(
    ("ports", "reachable"),
    [
        ('["8101:8101"]', True),
        ('["8100-8102:8100-8102"]', True),
        ('["9101:8101"]', True),
        ('["127.0.0.1:8101:8101"]', False),
        ('["[::1]:8102:8102"]', False),
        ("[{target: 8102, published: 8102, host_ip: 127.0.0.1}]", False),
        ("[{target: 8102, published: 8102}]", True),
        ('["8100:8100"]', False),
    ],
)
def test_unsigned_services_that_a_compose_file_publishes(folder: Path, ports: str, reachable: bool) -> None:
    report = examine(seen(folder, compose=f"services: {{verifier: {{ports: {ports}}}}}\n"))
    assert bool(subjects(report, "unsigned-feed")) is reachable


@pytest.mark.parametrize("added", ["[SYS_ADMIN]", "[cap_sys_admin]", "[ALL]"])
def test_capabilities_that_are_as_good_as_privileged(folder: Path, added: str) -> None:
    report = examine(seen(folder, compose=f"services: {{verifier: {{cap_add: {added}}}}}\n"))
    assert subjects(report, "privileged-container")


def test_kubearmor_may_be_privileged_and_nobody_else(folder: Path) -> None:
    report = examine(seen(folder, compose=COMPOSE))
    assert [subject.rpartition(": ")[2] for subject in subjects(report, "privileged-container")] == ["verifier"]


def test_tls_makes_an_open_port_of_kubearmor_good(folder: Path) -> None:
    open_port = sockets(("0.0.0.0", 32767))
    safe = replace(open_port, kubearmor=seen(folder, kubearmor=KUBEARMORED).kubearmor)
    assert "kubearmor-port" in examine(safe).clean
    plain = replace(open_port, kubearmor=seen(folder, kubearmor=KUBEARMOR).kubearmor)
    assert len(subjects(examine(plain), "kubearmor-port")) == 2


def test_another_port_of_kubearmor_is_looked_for(folder: Path) -> None:
    moved = replace(
        sockets(("0.0.0.0", 40_000)), kubearmor=seen(folder, kubearmor="gRPC: 40000\ndebug: true\n").kubearmor
    )
    assert "port 40000" in subjects(examine(moved), "kubearmor-port")


def test_the_kernels_sockets(folder: Path) -> None:
    table = written(
        folder / "tcp",
        """\
          sl  local_address rem_address   st
           0: 0100007F:1FA5 00000000:0000 0A
           1: 00000000:7FFF 00000000:0000 0A
           2: 0B014D0A:1FA6 0100007F:0001 01
        """,
    )
    table6 = written(
        folder / "tcp6",
        """\
          sl  local_address                         remote_address                        st
           0: 00000000000000000000000001000000:1FA5 00000000000000000000000000000000:0000 0A
           1: 0000000000000000FFFF00000B014D0A:1FA6 00000000000000000000000000000000:0000 0A
        """,
    )
    found = listening((table, table6))
    assert found is not None
    assert [(str(each.address), each.port) for each in found] == [
        ("127.0.0.1", 8101),
        ("0.0.0.0", 32767),
        ("::1", 8101),
        ("10.77.1.11", 8102),
    ]
    assert listening((folder / "none",)) is None


# --- the configuration, and the command ---------------------------------------------------------------------------


@pytest.fixture
def site(folder: Path) -> Installed:
    return Installed(folder / "site", devices={"cam-1": ("10.77.1.11",)})


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"NO_COLOR": "1"})


def test_the_book_and_the_longest_maximum_age_count(site: Installed, folder: Path) -> None:
    site.settings["sources"][0] |= {"max_age": "2h", "feed": "10.77.2.2:9101"}
    site.write("ragate.yaml", site.settings)
    corridor = [{"name": "feed", "address": "10.77.2.2", "port": 9101}]
    site.write("book.yaml", {"services": [], "corridor": corridor, "node_default": "admitted"})
    board = seen(folder, board="passport_period 7000\n").boards
    report = examine(Evidence(NOW, config=load(site.config), boards=board))
    assert "passport-life" in report.clean
    assert subjects(report, "unsigned-feed") == ["port 9101 at 10.77.2.2"]
    site.write("book.yaml", {"services": [], "node_default": "admitted", "devices": {"cam-1": {"max_age": "1h"}}})
    assert subjects(examine(Evidence(NOW, config=load(site.config), boards=board)), "passport-life")


def test_the_command_reads_what_is_given_and_what_the_main_file_names(site: Installed, folder: Path) -> None:
    written(site.folder / "sediment" / "RAP_Server", SHIPPED)
    site.settings["doctor"] = {"sediment": ["sediment/RAP_Server"]}
    site.write("ragate.yaml", site.settings)
    kubearmor = written(folder / "kubearmor.yaml", KUBEARMOR)
    done = call("--config", site.config, "--kubearmor", kubearmor, "-o", "json")
    assert done.exit_code == 1
    told = json.loads(done.output)
    found = {each["check"] for each in told["findings"]}
    assert {"pass-through", "passport-life", "kubearmor-port", "kubearmor-debug"} <= found
    assert all(set(each) == {"check", "subject", "what", "why", "mend"} for each in told["findings"])
    assert {each["check"] for each in told["unexamined"]} == {"privileged-container", "random-ports"}
    text = call("--config", site.config, "--kubearmor", kubearmor).output
    assert "pass-through\n  " in text
    assert "  why:  " in text
    assert "  mend: " in text
    assert "not looked at: random-ports; give --compose" in text


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--compose", "version: 3\n", "has no services"),
        ("--compose", "[1, 2]\n", "is no mapping"),
        ("--compose", "services: {verifier: [}\n", "is not YAML"),
        ("--compose", "[" * 100, "nested too deeply"),
        ("--kubearmor", "x\n", "is no mapping"),
        ("--sediment", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, option: str, text: str | None, said: str) -> None:
    path = folder / "file"
    if text is not None:
        path.write_text(text)
    done = call("--config", "ragate.yaml", option, path)
    assert done.exit_code == 2
    assert str(path) in done.output
    assert said in done.output


def test_a_folder_without_sediments_files(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has none of SEDIMENT's files"):
        gather(Places((folder,)), None, NOW)


def test_alerts_refused_for_their_time_are_counted() -> None:
    report = examine(Evidence(NOW, stale=3))
    assert what(report, "clocks") == ["3 authentic alerts of the last day were refused for their time"]
