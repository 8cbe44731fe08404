"""The book reloaded under live flows: paths that stay, go and come, and bad books that change nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.sediment.wire import Reason
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.installed import AHEAD, DEVICES, SERVICES, Installed, Running, until
from tests.e2e.kernel import admitted, elements
from tests.netns import SILENCE, run

pytestmark = pytest.mark.netns

BOOK: Mapping[str, Any] = {"services": SERVICES, "node_default": "admitted", "suspect": "deny"}


class Reloaded:
    """What ``ragate reload`` said."""

    def __init__(self, gate: Installed, *arguments: str) -> None:
        done = gate.ask("reload", *arguments)
        self.code = done.exit_code
        self.text = done.output


def give(gate: Installed, **more: Any) -> None:
    (gate.folder / "book.yaml").unlink(missing_ok=True)
    gate.write("book.yaml", {**BOOK, **more})


def static_part() -> str:
    listed = run("nft", "-s", "list", "table", "inet", "ragate")
    return listed.partition("chain refuse")[2]


def digest(service: Running) -> str:
    return str(service.get("/v1/book").json["digest"])


def test_live_flows_over_reloads(tmp_path: Path) -> None:
    """Neutral, cut, let in again; then other services, and a profile of the site's own."""
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        with gate.running() as service:
            gate.admit(service, *DEVICES)
            with ground.flows("cam-1") as flows, ground.flows("cam-2") as others:
                give(gate, classes=[{"name": "none", "match": {"id": "x*"}, "standings": "deny"}])
                done = Reloaded(gate, "--reason", "nobody is meant")
                assert done.code == 0, done.text
                assert "0 devices cut, 0 given less, 0 given more, 2 as before" in done.text
                assert "no device of the inventory matches it" in done.text
                assert all(flow.echoes() for flow in (*flows, *others))

                give(gate, devices={"cam-1": "deny"})
                done = Reloaded(gate)
                assert "1 devices cut" in done.text
                before = ground.received()
                assert not any(flow.echoes(SILENCE) for flow in flows)
                assert ground.received() == before, "a packet of a device that was cut still arrived"
                assert all(flow.echoes() for flow in others)
                assert set(admitted()) == set(DEVICES["cam-2"])
                assert service.device("cam-1")["profile"] == "deny"

                give(gate)
                done = Reloaded(gate)
                assert "1 given more" in done.text
                assert all(flow.echoes() for flow in (*flows, *others)), "the same flows go on"

                # only one of the four services is left for cam-2's profile, and that by a new one
                kept = {**SERVICES[0], "profiles": ["visitor", "admitted"]}
                folder = tmp_path / "profiles" / "visitor"
                folder.mkdir(parents=True)
                (folder / "profile.yaml").write_text("rank: 60\nrate: {new_connections: 100/s}\n")
                give(gate, services=[kept, *SERVICES[1:]], profiles="profiles", devices={"cam-2": "visitor"})
                done = Reloaded(gate)
                assert done.code == 0, done.text
                tcp4 = others[0]
                assert tcp4.echoes()
                assert not any(flow.echoes(SILENCE) for flow in others[1:])
                assert all(flow.echoes() for flow in flows)
                assert set(elements("visitor4")) == {DEVICES["cam-2"][0]}

                give(gate)
                assert Reloaded(gate).code == 0
                assert all(flow.echoes() for flow in (*flows, *others))
                assert "visitor" not in run("nft", "list", "table", "inet", "ragate"), (
                    "what went left no set behind"
                )
            assert service.metric("ragate_book_reloads_total", result="taken") == 5
            assert service.metric("ragate_drift_repairs_total", backend="nft") == 0
            assert service.ready()
            journal = run_journal(gate)
            assert [row["result"] for row in journal] == ["begins", "taken"] * 5
            assert {row["actor"] for row in journal} == {journal[0]["actor"]} != {""}
            assert journal[0]["reason"] == "nobody is meant"

    on_the_ground(body)


def run_journal(gate: Installed) -> list[dict[str, Any]]:
    """What the journal says of books, oldest first."""
    connection = sqlite3.connect(f"file:{gate.journal}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT body FROM facts WHERE kind = 'book' ORDER BY seq").fetchall()
    finally:
        connection.close()
    return [json.loads(body) for (body,) in rows]


FEEDS = """
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: 60-feeds}
spec:
  selector: {matchLabels: {kubearmor.io/container.name: app$}}
  file:
    matchDirectories: [{dir: "/srv/feeds/${device.id}/", recursive: true}]
  action: Block
"""
DIRECTORY = '{dir: "/srv/feeds/${device.id}/", recursive: true}'
POISON = FEEDS.replace("/srv/feeds/", "/srv/../etc/")
INJECTION = FEEDS.replace("60-feeds", '"60-feeds-${device.id}"')
FULL = FEEDS.replace(DIRECTORY, ", ".join(f'{{dir: "/srv/{number}/", recursive: true}}' for number in range(300)))


def with_document(gate: Installed, text: str, **more: Any) -> None:
    """A book whose profile ``visitor`` has one document."""
    folder = gate.folder / "profiles" / "visitor"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.yaml").write_text("rank: 60\ndocuments: [feeds.yaml]\n")
    (folder / "feeds.yaml").write_text(text)
    give(gate, profiles="profiles", **more)


def test_bad_books_of_every_kind_are_refused_and_the_running_one_stands(tmp_path: Path) -> None:
    gate = Installed(tmp_path)
    gate.settings["management"] = ["10.9.0.0/24"]
    gate.write("ragate.yaml", gate.settings)
    good = {
        "always_allowed": ["10.9.0.0/24"],
        "corridor": [{"name": "verifier", "address": "127.0.0.2", "port": 8100}],
    }

    def typo() -> None:
        give(gate, **good, node_defualt="deny")

    def duplicate() -> None:
        give(gate, **good)
        with (gate.folder / "book.yaml").open("a") as book:
            book.write("suspect: probation\n")

    def locked_out() -> None:
        give(gate, corridor=good["corridor"])

    def no_corridor() -> None:
        give(gate, always_allowed=good["always_allowed"])

    def unknown_device() -> None:
        give(gate, **good, devices={"cam-9": "deny"})

    def poison() -> None:
        with_document(gate, POISON, **good)

    def injecting() -> None:
        with_document(gate, INJECTION, **good)

    def over_budget() -> None:
        with_document(gate, FULL, **good)

    def no_yaml() -> None:
        (gate.folder / "book.yaml").write_text("services: [\n")

    def missing() -> None:
        (gate.folder / "book.yaml").unlink()

    kinds = {
        typo: "node_default",
        duplicate: "suspect",
        locked_out: "10.9.0.0/24",
        no_corridor: "verifier",
        unknown_device: "cam-9",
        poison: "feeds.yaml:8:",
        injecting: "feeds.yaml:4:",
        over_budget: "256",
        no_yaml: "is not YAML",
        missing: "book.yaml",
    }

    def body(ground: Ground) -> None:
        give(gate, **good)
        with gate.running() as service:
            gate.admit(service, *DEVICES)
            running, standing = digest(service), static_part()
            with ground.flows("cam-1") as flows:
                for number, (spoil, named) in enumerate(kinds.items(), 1):
                    spoil()
                    done = Reloaded(gate)
                    assert done.code == 1, f"{spoil.__name__}: {done.text}"
                    assert "refused; the running book stays" in done.text
                    assert named in done.text, done.text
                    assert "Traceback" not in done.text
                    assert (digest(service), static_part()) == (running, standing)
                    assert service.metric("ragate_book_reloads_total", result="refused") == number
                    assert service.metric("ragate_book_last_reload_successful") == 0
                    assert service.ready(), "the book before is at work"
                    (line,) = (p["detail"] for p in service.get("/readyz").json["parts"] if p["part"] == "book")
                    assert "the newest was refused" in line
                    print(f"--- {spoil.__name__}\n{done.text}")
                assert all(flow.echoes() for flow in flows)
                give(gate, **good)
                done = Reloaded(gate)
                assert (done.code, "unchanged" in done.text) == (0, True)
                assert service.metric("ragate_book_last_reload_successful") == 1
            service.says('"event": "notice"')
            service.says("the one before stays")

    on_the_ground(body)


def test_a_signal_reloads_while_verdicts_arrive(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        with gate.running() as service:
            gate.admit(service, *DEVICES)
            for turn in range(3):
                give(gate, devices={"cam-2": "deny" if turn % 2 == 0 else "admitted"})
                service.process.send_signal(signal.SIGHUP)
                later = int(service.device("cam-1")["records"]["verifier"]["newest"]) + 1
                until(lambda later=later: time.time() > later - AHEAD)  # type: ignore[misc]
                gate.tell("cam-1", Reason.FAILED_ATTEST, issued_at=later)
                service.wait("cam-1", "distrusted")
                assert ground.shut("cam-1")
                gate.recover(service, "cam-1")
                until(lambda turn=turn: service.get("/v1/book").json["reloads"]["taken"] == turn + 1)  # type: ignore[misc]
                assert ground.blocked(DEVICES["cam-2"][0]) is (turn % 2 == 0)
                assert ground.passes(DEVICES["cam-1"][0])
            assert service.get("/v1/book").json["last"]["actor"] == "signal:SIGHUP"
            assert service.ready()

    on_the_ground(body)


def endless(gate: Installed) -> None:
    """A book whose trial does not end by itself: nobody writes into the pipe."""
    book = gate.folder / "book.yaml"
    book.unlink()
    os.mkfifo(book)


@pytest.mark.parametrize("when", ["trial", "swap"])
def test_killed_during_a_reload_a_start_agrees_with_the_new_book(tmp_path: Path, when: str) -> None:
    gate = Installed(tmp_path)

    def body(ground: Ground) -> None:
        with gate.running() as service:
            gate.admit(service, *DEVICES)
            changed = {"devices": {"cam-1": "deny"}, "services": SERVICES[:2]}
            if when == "trial":
                endless(gate)
            else:
                give(gate, **changed)
            service.process.send_signal(signal.SIGHUP)
            if when == "trial":
                until(lambda: "tried" in service.get("/v1/book").json["doing"])
            else:
                until(lambda: any(row["result"] == "begins" for row in run_journal(gate)))
            service.kill()
            give(gate, **changed)
        with gate.running() as service:
            assert service.get("/v1/book").json["last"] is None
            service.wait("cam-1", "trusted")
            service.wait("cam-2", "trusted")
            assert service.device("cam-1")["profile"] == "deny"
            assert set(admitted()) == set(DEVICES["cam-2"])
            assert ground.shut("cam-1")
            assert ground.passes(DEVICES["cam-2"][0])
            assert service.metric("ragate_withheld_total") == 0

    on_the_ground(body)


def test_an_operator_waits_for_another_reload_and_is_told(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body(_ground: Ground) -> None:
        with gate.running() as service:
            endless(gate)
            service.process.send_signal(signal.SIGHUP)
            until(lambda: "tried" in service.get("/v1/book").json["doing"])
            done = Reloaded(gate)
            assert done.code == 1, done.text
            assert "is under way" in done.text
            (gate.folder / "book.yaml").write_bytes(b"")  # the pipe's end
            until(lambda: service.get("/v1/book").json["reloads"]["refused"] == 1)
            give(gate)
            assert Reloaded(gate, "-o", "json").code == 0

    on_the_ground(body)
