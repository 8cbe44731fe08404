"""``ragate plan`` and ``ragate what-if`` on real files, and the guide that shows them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cli.rehearsing import EVENTS
from gateway.console.operator import OperatorWindow
from gateway.core import lifecycle
from gateway.core.lifecycle import Rules
from gateway.core.model import DeviceId, Event, EventKind, Instant, Record, SourceName, Standing, Transition
from gateway.core.rehearsal import IMAGINABLE
from gateway.journal.rows import encode_entry
from gateway.journal.schema import open_journal
from gateway.journal.store import Group, Store
from tests.console.conftest import windows
from tests.fakes.directory import FakeSite, make_view
from tests.test_cli import INVENTORY, SETTINGS, ask, call, public_key

GUIDE = Path(__file__).parent.parent / "docs" / "plan.md"

__all__ = ["public_key"]  # the fixture


def blocks(kind: str) -> list[str]:
    """The guide's fenced blocks of one kind."""
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


OLD, NEW = blocks("yaml")


@pytest.fixture
def home(tmp_path: Path, public_key: bytes) -> Path:
    """A folder with a usable configuration and two books; the keys of its devices are not there."""
    settings = SETTINGS.replace("var/", "").replace("127.0.0.2", "10.77.2.2")
    (tmp_path / "ragate.yaml").write_text(settings)
    (tmp_path / "devices.yaml").write_text(INVENTORY)
    (tmp_path / "book.yaml").write_text(OLD)
    (tmp_path / "next.yaml").write_text(NEW)
    (tmp_path / "verifier.pem").write_bytes(public_key)
    return tmp_path


def write_journal(path: Path, *events: tuple[str, EventKind, float]) -> None:
    """Events of devices at their UNIX times, through the lifecycle, in a journal that was closed in order."""
    opened = open_journal(path)
    store = Store(opened.connection)
    seq = store.load("boot").next_seq
    records: dict[str, Record] = {}
    for name, kind, at in events:
        before = records.get(name, Record())
        event = Event(kind, at, int(at), None, str(at).encode(), kind.value)
        step = lifecycle.step(before, event, Rules())
        records[name] = step.record
        fact = Transition(DeviceId(name), SourceName("verifier"), event, before, step.record, step.effect, step.why)
        store.commit(Group([encode_entry(seq, fact, step.record, at)], (), ()), Instant(at, at))
        seq += 1
    store.close(seq)
    os.close(opened.lock)


@pytest.fixture
def journal(home: Path) -> Path:
    """Both cameras passed: one more than five minutes ago, the other ten and just now."""
    now = float(int(time.time()))
    path = home / "journal.db"
    write_journal(
        path,
        ("cam-2", EventKind.PASSED, now - 600.0),
        ("cam-1", EventKind.PASSED, now - 330.0),
        ("cam-2", EventKind.PASSED, now - 1.0),
    )
    return path


def plan(home: Path, *arguments: str | Path) -> tuple[int, str]:
    result = call("plan", *arguments, "-c", home / "ragate.yaml")
    return result.exit_code, result.stdout + result.stderr


# --- the guide ------------------------------------------------------------------------------------------------


def shown(text: str, home: Path) -> str:
    """Output with the folder left out and times as the guide writes them."""
    text = text.replace(f"{home}/", "")
    stamp = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}Z"
    text = re.sub(f"first {stamp}", "first START", text)
    return re.sub(f"from {stamp} to {stamp}", "from START to END", text)


@pytest.mark.usefixtures("journal")
def test_the_guide_shows_what_happens(home: Path) -> None:
    for block in blocks("console"):
        command, _, output = block.partition("\n")
        program, *arguments = shlex.split(command.removeprefix("$ "))
        assert program == "ragate"
        words = [str(home / word) if word.endswith(".yaml") else word for word in arguments]
        result = call(*words, "-c", home / "ragate.yaml")
        # The seconds that the test takes are in the durations.
        told = re.sub(r"(\d+m) \d+s", r"\1 30s", shown(result.stdout + result.stderr, home))
        assert told == output, command


# --- plan -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("journal")
def test_plan_as_json(home: Path) -> None:
    code, told = plan(home, home / "next.yaml", "-o", "json", "--replay", "1d")
    found = json.loads(told)
    assert code == 1
    assert found["changing"] == {"all": 1, "now": 1, "trusted": 0, "suspect": 0}
    (group,) = found["groups"]
    assert (group["when"], group["direction"], group["devices"]) == ("now", "less", ["cam-1"])
    assert group["lost"] == ["feed 10.77.3.2:8001/tcp"]
    assert found["documents"] == {"added": [], "changed": [], "removed": []}
    assert found["replay"]["events"] == 3
    assert [each["device"] for each in found["replay"]["devices"]] == ["cam-1", "cam-2"]


def test_nothing_changes(home: Path, journal: Path) -> None:
    (home / "same.yaml").write_text(OLD + "# a comment\n")
    before = journal.read_bytes()
    code, told = plan(home, home / "same.yaml", "--replay", "2h")
    assert code == 0
    assert told.startswith("No access changes.\n")
    assert "Nobody would have been cut or admitted differently." in told
    assert journal.read_bytes() == before


def test_without_journal_or_service(home: Path) -> None:
    code, told = plan(home, home / "next.yaml")
    assert code == 1
    assert "0 lose access now, 0 gain access now, 1 notice" in told
    assert "no journal and no service: every device is taken as unknown" in told
    assert "when trusted: admitted → probation" in told
    assert not (home / "journal.db").exists()
    code, told = plan(home, home / "next.yaml", "--replay", "1d")
    assert (code, "cannot be replayed" in told) == (2, True)


def test_names_are_limited_and_counted(home: Path) -> None:
    (home / "none.yaml").write_text(OLD.replace("node_default: admitted", "node_default: deny"))
    code, told = plan(home, home / "none.yaml", "--limit", "1")
    assert code == 1
    assert "  2: cam-1 and 1 more\n" in told


def test_what_comes_and_goes_beside_devices(home: Path) -> None:
    (home / "more.yaml").write_text(
        OLD.replace("corridor:\n", "corridor:\n  - {name: clock, address: 10.77.2.9, port: 123, protocol: udp}\n")
        + "always_allowed: [10.77.9.0/24]\n"
    )
    code, told = plan(home, home / "more.yaml")
    assert code == 0
    assert told.endswith("\n\n+ always allowed 10.77.9.0/24\n+ corridor entry clock\n")


def test_against_another_book(home: Path) -> None:
    code, told = plan(home, home / "book.yaml", "--against", home / "next.yaml")
    assert code == 1
    assert "when trusted: probation → admitted; gains feed 10.77.3.2:8001/tcp" in told
    code, told = plan(home, home / "book.yaml")
    assert (code, "nothing to compare it with" in told) == (2, True)


def test_a_book_that_would_be_refused(home: Path) -> None:
    (home / "shut.yaml").write_text(re.sub(r"corridor:\n.*\n", "", NEW))
    code, told = plan(home, home / "shut.yaml")
    assert code == 4
    assert told.startswith("REFUSED: ")
    assert "error: corridor" in told
    (home / "stranger.yaml").write_text(OLD + "devices: {cam-9: deny}\n")
    assert plan(home, home / "stranger.yaml")[0] == 4


def test_what_cannot_be_used(home: Path, journal: Path) -> None:
    (home / "broken.yaml").write_text("node_default: admited\n")
    assert plan(home, home / "broken.yaml")[0] == 2
    assert plan(home, home / "none.yaml")[0] == 2
    for span in ("soon", "0s", "400d"):
        assert plan(home, home / "next.yaml", "--replay", span)[0] == 2
    assert plan(home, home / "next.yaml", "--socket", home / "none.sock")[0] == 3
    journal.write_bytes(b"no journal" * 100)
    code, told = plan(home, home / "next.yaml")
    assert code == 2
    assert "journal.db" in told


# --- the running service --------------------------------------------------------------------------------------


@pytest.fixture
async def service(home: Path) -> AsyncIterator[Path]:
    site = FakeSite((make_view("cam-1"), make_view("cam-2", Standing.DISTRUSTED, "10.77.1.12")))
    window = OperatorWindow(windows(site), site, site, home / "op.sock")
    await window.start()
    yield home / "op.sock"
    await window.stop()


async def test_plan_against_the_running_service(home: Path, service: Path) -> None:
    result = await ask("plan", home / "next.yaml", "-c", home / "ragate.yaml")
    assert result.exit_code == 1, result.stderr
    assert "states from the running service" in result.stdout
    assert "now: admitted → probation" in result.stdout
    (home / "book.yaml").write_text(OLD.replace("node_default: admitted", "node_default: probation"))
    stray = await ask("plan", home / "next.yaml", "-c", home / "ragate.yaml", "--socket", service)
    assert "careful: the service runs another book" in stray.stdout


async def test_what_if_of_the_running_service(home: Path, service: Path) -> None:
    result = await ask("what-if", "cam-1", "held", "-c", home / "ragate.yaml", "--socket", service, "-o", "json")
    found = json.loads(result.stdout)
    assert found["standing"] == {"before": "trusted", "after": "held"}
    assert found["states"] == "state from the running service"


async def test_an_override_counts_in_plan_and_what_if(home: Path) -> None:
    site = FakeSite((make_view("cam-1"), make_view("cam-2", Standing.DISTRUSTED, "10.77.1.12")))
    site.override(DeviceId("cam-1"), "deny", 10 * 365 * 86_400.0, "unix:ann", "firmware")
    window = OperatorWindow(windows(site), site, site, home / "op.sock")
    await window.start()
    planned = await ask("plan", home / "next.yaml", "-c", home / "ragate.yaml", "-o", "json")
    assert json.loads(planned.stdout)["changing"]["now"] == 0, planned.stderr
    assert "running_otherwise" in planned.stdout
    assert json.loads(planned.stdout)["running_otherwise"] == 0
    line = ("what-if", "cam-1", "passed", "-c", home / "ragate.yaml", "--socket", home / "op.sock", "-o", "json")
    found = json.loads((await ask(*line)).stdout)
    assert found["profile"] == {"before": "deny", "after": "deny"}
    assert any("operator override by unix:ann" in rule for rule in found["chain"])
    await window.stop()


# --- what-if --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("journal")
def test_what_if_says_and_changes_nothing(home: Path) -> None:
    config = ("-c", home / "ragate.yaml")
    told = call("what-if", "cam-1", "lapsed", *config)
    assert told.exit_code == 0
    assert told.stdout.startswith("If cam-1 lapsed: it goes trusted → lapsed.\nWhy: the deadline passed")
    again = call("what-if", "cam-1", "passed", *config, "--book", home / "next.yaml", "-o", "json")
    found = json.loads(again.stdout)
    assert found["profile"] == {"before": "probation", "after": "probation"}
    assert found["chain"][-1] == "standing trusted: probation until the deadline"
    # A pass never shortens what an earlier one gave.
    assert found["until"] == pytest.approx(time.time() - 330 + 900, abs=30)


def test_what_if_without_anything_and_wrong(home: Path) -> None:
    config = ("-c", home / "ragate.yaml")
    told = call("what-if", "cam-1", "passed", *config)
    assert told.stdout.startswith("If cam-1 passed: it goes unknown → trusted.\n")
    assert "the device is taken as unknown" in told.stdout
    assert call("what-if", "cam-9", "passed", *config).exit_code == 1
    wrong = call("what-if", "cam-1", "exploded", *config)
    assert (wrong.exit_code, "must be one of passed, failed" in wrong.stderr) == (2, True)


async def test_the_command_line_stays_light() -> None:
    code = (
        "import gateway.cli.commands, sys; print('gateway.journal' in sys.modules, 'gateway.config' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    out, _ = await asyncio.wait_for(process.communicate(), 50)
    assert out.decode().split() == ["False", "False"]


# --- documents ------------------------------------------------------------------------------------------------

SHIPPED = Path(__file__).parent.parent / "policies" / "profiles"
WITH_PROFILES = f"profiles: {SHIPPED}\n" + OLD.replace(
    "node_default: admitted\nsuspect: probation", "node_default: {trusted: admitted, distrusted: quarantine}"
)


def documents_of(told: str) -> list[str]:
    """Lines about documents, without the digest in each name."""
    return re.findall(r"^([+~-] document \S+)-[0-9a-f]{8}$", told, re.MULTILINE)


def test_documents_are_those_that_the_service_would_send(home: Path) -> None:
    write_journal(home / "journal.db", ("cam-1", EventKind.FAILED, time.time() - 5))
    (home / "profiles.yaml").write_text(WITH_PROFILES + "site: [{name: lockdown, when: {distrusted: '>= 2'}}]\n")
    code, told = plan(home, home / "profiles.yaml", "--limit", "20")
    assert code == 1  # suspect devices lose their probation
    assert len(documents_of(told)) == 10
    assert "+ document gateway/container/60-container-quarantined-feeds" in documents_of(told)
    assert "budget gateway: container [kubearmor.io/container.name=sediment_app_server$]: 0 → " in told
    # The other camera as well: the running rule is about two, and the site locks itself down.
    again = (home / "profiles.yaml").rename(home / "book.yaml")
    (home / "next.yaml").write_text(again.read_text() + "deployments: []\n")
    code, told = plan(home, home / "next.yaml")
    assert (code, documents_of(told)) == (0, [])
    (home / "next.yaml").write_text(again.read_text().replace(">= 2", ">= 1"))
    code, told = plan(home, home / "next.yaml", "-o", "json")
    found = json.loads(told)
    assert code == 0
    assert [name.split("/")[-1][:-9] for name in found["documents"]["added"] if "/70-" in name] == [
        "70-container-app-server-closed"
    ]
    assert len(found["documents"]["removed"]) == 9
    before, after = ({each["subject"]: each[key] for each in found["budgets"]} for key in ("before", "after"))
    assert all(before[subject] < number for subject, number in after.items())


def test_a_parameter_changes_the_documents_of_who_has_the_profile(home: Path) -> None:
    write_journal(home / "journal.db", ("cam-1", EventKind.FAILED, time.time() - 5))
    for name in ("old", "new"):
        folder = home / name / "quarantine"
        folder.mkdir(parents=True)
        (folder / "profile.yaml").write_text(
            f"rank: 10\nreach: []\nparameters: {{site.root: {name}}}\ndocuments: [feeds.yaml]\n"
        )
        feeds = (SHIPPED / "quarantine" / "feeds.yaml").read_text()
        (folder / "feeds.yaml").write_text(feeds.replace("/srv/feeds/", "/srv/${site.root}/"))
        (home / f"{name}.yaml").write_text(WITH_PROFILES.replace(str(SHIPPED), str(home / name)))
    code, told = plan(home, home / "new.yaml", "--against", home / "old.yaml")
    assert (code, documents_of(told)) == (0, ["~ document gateway/container/60-container-quarantined-feeds"])
    (home / "journal.db").unlink()
    code, told = plan(home, home / "new.yaml", "--against", home / "old.yaml")
    assert (code, documents_of(told)) == (0, [])


def test_a_document_that_cannot_be_is_refused_with_its_place(home: Path) -> None:
    folder = home / "profiles" / "quarantine"
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text("rank: 10\nreach: []\ndocuments: [feeds.yaml]\n")
    feeds = (SHIPPED / "quarantine" / "feeds.yaml").read_text()
    (folder / "feeds.yaml").write_text(feeds.replace("dir: /srv/feeds/${device.id}/", "dir: /srv/../${device.id}/"))
    (home / "bad.yaml").write_text(WITH_PROFILES.replace(str(SHIPPED), "profiles"))
    code, told = plan(home, home / "bad.yaml")
    assert code == 2
    assert f"{folder / 'feeds.yaml'}:23:14: " in told


def test_the_words_of_events_are_the_rehearsals() -> None:
    assert set(EVENTS) == set(IMAGINABLE)
