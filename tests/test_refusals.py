"""What must never be taken is refused by check, plan and start alike: with its place, in words for the night."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.test_cli import BOOK, INVENTORY, KEY_1, KEY_2, SETTINGS, call, public_key

__all__ = ["public_key"]  # the fixture

PROFILE = """\
rank: 10
reach: []
parameters:
  site.tenant: {type: word, value: north}
documents: [doc.yaml]
"""
HEAD = "apiVersion: security.kubearmor.com/v1\n"
FEED = """\
kind: KubeArmorPolicy
metadata: {name: 60-feeds}
spec:
  selector: {matchLabels: {kubearmor.io/container.name: app$}}
  file:
    matchDirectories:
      - {dir: "/srv/${site.tenant}/${device.id}/", recursive: true}
  action: Block
"""
NET = """\
kind: KubeArmorNetworkPolicy
metadata: {name: 60-net}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  ingress:
    - from: [{ipBlock: {cidr: "${device.address}"}}]
      ports: [{port: "8001", protocol: TCP}]
  action: Block
"""
PATHS = "".join(f"      - {{path: /opt/{number}}}\n" for number in range(257))
TOO_MANY = FEED.replace("    matchDirectories:\n", f"    matchPaths:\n{PATHS}    matchDirectories:\n")
GOOD_BOOK = BOOK.replace(
    "node_default: admitted", "node_default: {trusted: admitted, distrusted: quarantine}\nprofiles: profiles/"
)

#: file, what stands there, what is written instead, and what is said. The books of all are good otherwise.
CASES: Sequence[tuple[str, str, str, str, str]] = (
    # --- typos and duplicates
    ("a key of the book", "book.yaml", "services:", "servces:", r"book\.yaml:2:1: 'servces' is not known"),
    (
        "a key of a service",
        "book.yaml",
        "port: 8001",
        "prt: 8001",
        r"book\.yaml:3:38: 'prt' is not known in a service",
    ),
    (
        "a key twice",
        "book.yaml",
        "corridor:",
        "services: []\ncorridor:",
        r"book\.yaml:4:1: .*services.*(twice|already)",
    ),
    ("a profile", "book.yaml", "quarantine}", "quarantin}", r"book\.yaml:6:47: .*'quarantin' is not known"),
    ("a standing", "book.yaml", "distrusted:", "distrused:", r"book\.yaml:6:35: .*'distrused' is not known"),
    (
        "a key of a profile",
        "profile.yaml",
        "reach:",
        "reech:",
        r"profile\.yaml:2:1: 'reech' is not known in profile",
    ),
    ("a key of a profile twice", "profile.yaml", "reach: []", "reach: []\nrank: 1", r"profile\.yaml:3:1: .*rank.*"),
    (
        "a field of a document",
        "doc.yaml",
        "matchDirectories",
        "matchDirectorys",
        r"doc\.yaml:7:5: KA-UNKNOWN-FIELD",
    ),
    ("a field twice", "doc.yaml", "  action: Block", "  action: Block\n  action: Audit", r"KA-DUPLICATE-KEY"),
    (
        "a parameter",
        "doc.yaml",
        "${site.tenant}",
        "${site.tennant}",
        r"doc\.yaml:8:15: .*did you mean \$\{site\.tenant",
    ),
    # --- templates that inject
    ("YAML in a value", "profile.yaml", "north", '"x\\n  action: Allow"', r"profile\.yaml:4:36: .* is no word"),
    ("nft in a value", "profile.yaml", "north", '"1 } accept; }"', r"profile\.yaml:4:36: .* is no word"),
    (
        "a path in a value",
        "profile.yaml",
        "north",
        "../../etc",
        r"profile\.yaml:4:36: .*a value is one name, never a path",
    ),
    ("a path in a document", "doc.yaml", "/srv/${site", "/srv/../${site", r"doc\.yaml:8:15: .*'/srv/\.\./north"),
    (
        "a parameter as a name",
        "doc.yaml",
        "60-feeds",
        "'60-${device.id}'",
        r"doc\.yaml:3:18: no parameter may stand in 'name'",
    ),
    (
        "a parameter as a port",
        "doc.yaml",
        FEED,
        NET.replace('"8001"', '"${site.tenant}"'),
        r"no parameter may stand in 'port'",
    ),
    ("a parameter in a cidr", "doc.yaml", FEED, NET.replace('address}"', 'address}/0"'), r"is no prefix"),
    ("nft in a port", "doc.yaml", FEED, NET.replace('"8001"', '"22 accept #"'), r"doc\.yaml:8:22: KA-NET-PORT"),
    # --- poison
    (
        "a prefix beyond 32",
        "doc.yaml",
        FEED,
        NET.replace("${device.address}", "10.0.0.0/33"),
        r"doc\.yaml:7:31: KA-NET-CIDR",
    ),
    ("a host name as prefix", "doc.yaml", FEED, NET.replace("${device.address}", "evil.example"), r"KA-NET-CIDR"),
    ("a single family", "doc.yaml", FEED, NET.replace("${device.address}", "10.0.0.0/8"), r"KA-NET-FAMILY"),
    ("icmp with a port", "doc.yaml", FEED, NET.replace("TCP", "ICMP"), r"doc\.yaml:8:40: KA-NET-PROTOCOL"),
    (
        "a name that is a path",
        "doc.yaml",
        "60-feeds",
        "../../root/x",
        r"doc\.yaml:3:18: the name '\.\./\.\./root/x' has a '/'",
    ),
    # --- budgets and lock-outs
    ("a table overfull", "doc.yaml", FEED, TOO_MANY, r"KA-BUDGET: .* takes \d+ of 256 entries"),
    (
        "the host cut off",
        "doc.yaml",
        FEED,
        NET.replace('      ports: [{port: "8001", protocol: TCP}]\n', "").replace(
            '"${device.address}"', '"0.0.0.0/0"'
        ),
        r"KA-NET-BLOCK-ALL: this cuts all ingress of the host",
    ),
    ("allow for a host", "doc.yaml", FEED, NET.replace("action: Block", "action: Allow"), r"KA-NET-LOCKOUT"),
)


@pytest.fixture
def home(tmp_path: Path, public_key: bytes) -> Path:
    (tmp_path / "ragate.yaml").write_text(SETTINGS.replace("127.0.0.2", "10.77.2.2"))
    (tmp_path / "devices.yaml").write_text(INVENTORY)
    (tmp_path / "book.yaml").write_text(BOOK)
    (tmp_path / "next.yaml").write_text(GOOD_BOOK)
    (tmp_path / "verifier.pem").write_bytes(public_key)
    (tmp_path / "devices.keys").write_text(f"cam-1 {KEY_1}\ncam-2 {KEY_2}\n")
    (tmp_path / "devices.keys").chmod(0o600)
    folder = tmp_path / "profiles" / "quarantine"
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(PROFILE)
    (folder / "doc.yaml").write_text(HEAD + FEED)
    return tmp_path


def said(home: Path, command: str, book: str = "next.yaml") -> tuple[int, str]:
    config = home / "ragate.yaml"
    if command == "plan":
        result = call("plan", home / book, "-c", config)
    else:
        text = config.read_text()
        config.write_text(text.replace("book: book.yaml", f"book: {book}"))
        result = call(command, "-c", config)
        config.write_text(text)
    return result.exit_code, (result.stdout + result.stderr).replace(f"{home}/", "")


def test_the_good_one_is_taken(home: Path) -> None:
    assert said(home, "check")[0] == 0
    assert said(home, "plan")[0] in (0, 1)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_refused_by_all_three_alike(home: Path, file: str, old: str, new: str, expected: str) -> None:
    path = home / "next.yaml" if file == "book.yaml" else home / "profiles" / "quarantine" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    expected = expected.replace(r"book\.yaml", r"next\.yaml")
    answers = [said(home, command) for command in ("check", "plan", "serve")]
    assert [code for code, _ in answers] == [2, 2, 2]
    for _, told in answers:
        assert re.search(expected, told), told
        # A place, what is wrong, and what to do: three parts in one line.
        first = told.splitlines()[0]
        assert re.match(r"ragate: \S+\.yaml:\d+:\d+: .{8,}(; \S|: use |, never )", first), first
        assert len(first) < 400, first
        assert "Traceback" not in told


def test_a_book_that_locks_somebody_out_is_refused(home: Path) -> None:
    """Management, the corridor, our own links: by plan with exit code 4, by check and start as unusable."""
    config = home / "ragate.yaml"
    config.write_text(config.read_text() + "management: [10.9.0.0/24]\nconsole: {listen: 10.77.3.2:8001}\n")
    (home / "book.yaml").write_text(BOOK.replace("8001", "8002") + "always_allowed: [10.9.0.0/24]\n")
    (home / "next.yaml").write_text(BOOK)
    code, told = said(home, "plan")
    assert code == 4
    assert told.startswith("REFUSED: this book would not be taken; see the errors below.\n")
    assert "always_allowed: management from 10.9.0.0/24 is not in it any more" in told
    assert "service feed: it gates the console at 10.77.3.2 port 8001/tcp: a cut would reach ourselves" in told
    for command in ("check", "serve"):
        code, told = said(home, command)
        assert code == 2
        assert "management from 10.9.0.0/24 is not in it" in told
        assert "next.yaml:3:5: service feed: it gates the console" in told
