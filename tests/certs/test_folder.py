"""The folder of certificates: rights, renewal, revocation by name, and the command in front of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.certs import Folder, IdentityRefused, Role, identify, read_revoked
from gateway.cli.commands import app
from gateway.core.errors import ConfigError

AT = 1_795_283_400.0
DAY = 86_400.0


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "certs")
    made.init("pier", AT)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_keys_are_the_owners_alone(folder: Folder) -> None:
    folder.issue(Role.AGENT, "app", [], AT)
    assert mode(folder.path) == 0o700
    for file in folder.path.iterdir():
        private = file.suffix in (".key", ".json")
        assert mode(file) == (0o600 if private else 0o644), file
    assert not [file for file in folder.path.iterdir() if file.name.startswith(".")], "nothing half-written stays"


def test_a_second_authority_and_a_second_certificate_are_refused(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="has an authority already"):
        folder.init("pier", AT)
    folder.issue(Role.AGENT, "app", [], AT, 9)
    with pytest.raises(ConfigError, match="has a certificate already"):
        folder.issue(Role.AGENT, "app", [], AT + 5 * DAY, 9)
    folder.issue(Role.AGENT, "app", [], AT + 6.5 * DAY, 9)


def test_renew_makes_what_is_due_and_the_old_one_stays_good(folder: Folder) -> None:
    folder.issue(Role.GATEWAY, "gw", ["10.0.0.1"], AT, 90)
    folder.issue(Role.AGENT, "app", [], AT, 9)
    old = folder.certificate(Role.AGENT, "app").read_bytes()
    assert folder.renew(AT + 5 * DAY) == []
    (made,) = folder.renew(AT + 7 * DAY)
    assert (made.role, made.name, made.days) == (Role.AGENT, "app", 9)
    authority = folder.authority.read_bytes()
    for pem in (old, folder.certificate(Role.AGENT, "app").read_bytes()):
        assert identify(pem, authority, frozenset(), AT + 7 * DAY).name == "app"
    assert folder.renew(AT + 7 * DAY) == []
    assert {one.name for one in folder.renew(AT + 7 * DAY, everything=True)} == {"gw", "app"}


def test_revoking_a_holder_ends_every_certificate_of_its_own(folder: Folder) -> None:
    folder.issue(Role.AGENT, "app", [], AT, 9)
    folder.issue(Role.AGENT, "other", [], AT, 9)
    first = folder.certificate(Role.AGENT, "app").read_bytes()
    folder.renew(AT + 7 * DAY)
    second = folder.certificate(Role.AGENT, "app").read_bytes()
    assert len(folder.revoke(Role.AGENT, "app", AT + 7 * DAY)) == 2
    authority = folder.authority.read_bytes()
    revoked = read_revoked(folder.revocations.read_bytes(), authority)
    for pem in (first, second):
        with pytest.raises(IdentityRefused, match="revoked"):
            identify(pem, authority, revoked, AT + 7 * DAY)
    other = folder.certificate(Role.AGENT, "other").read_bytes()
    assert identify(other, authority, revoked, AT + 7 * DAY).name == "other"
    with pytest.raises(ConfigError, match="no valid certificate"):
        folder.revoke(Role.AGENT, "app", AT + 7 * DAY)
    assert folder.renew(AT + 7 * DAY, everything=True)[0].name == "other", "a revoked holder is not renewed"


def test_a_damaged_register_is_said_and_nothing_is_overwritten(folder: Folder) -> None:
    for text in ("", "[1]", "{}", '[{"role": "agent"}]', "\xff"):
        (folder.path / "issued.json").write_text(text, encoding="latin-1")
        if text == "{}":
            continue  # an empty mapping reads as an empty list
        with pytest.raises(ConfigError, match=r"issued\.json"):
            folder.issue(Role.AGENT, "app", [], AT)
        assert not folder.certificate(Role.AGENT, "app").exists()


# --- the command --------------------------------------------------------------------------------------------


def ask(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["certs", *words, "--folder", str(folder)])


def test_the_command_from_nothing_to_a_revoked_agent(tmp_path: Path) -> None:
    folder, host = tmp_path / "certs", tmp_path / "host"
    assert ask(folder, "init", "pier").exit_code == 0
    assert ask(folder, "issue", "gateway", "edge").exit_code == 2, "nobody could reach it"
    assert ask(folder, "issue", "gateway", "edge", "--host", "10.77.3.1").exit_code == 0
    assert ask(host, "request", "app").exit_code == 0
    assert ask(host, "request", "app").exit_code == 2, "the key in use is not replaced"
    assert mode(host / "app.key") == 0o600
    signed = CliRunner().invoke(
        app, ["certs", "sign", "agent", "app", str(host / "app.csr"), "--folder", str(folder)]
    )
    assert signed.exit_code == 0, signed.output
    assert not (folder / "agent-app.key").exists()
    assert ask(folder, "issue", "agent", "short", "--days", "1").exit_code == 0
    assert ask(folder, "renew").output == "nothing is due\n"
    assert ask(folder, "revoke", "agent", "app").exit_code == 0
    listed = json.loads(ask(folder, "list", "--output", "json").output)
    assert {(row["role"], row["name"], row["state"]) for row in listed} == {
        ("gateway", "edge", "good"),
        ("agent", "app", "revoked"),
        ("agent", "short", "good"),
    }


@pytest.mark.parametrize(
    "words",
    [("issue", "king", "app"), ("issue", "agent", "../x"), ("revoke", "agent", "app"), ("list",), ("renew",)],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, words: tuple[str, ...]) -> None:
    answer = ask(tmp_path / "none", *words)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("ragate: ")
    assert "Traceback" not in answer.output
