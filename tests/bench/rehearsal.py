"""How long a rehearsal takes: ``python -m tests.bench.rehearsal [--verdicts N] [--devices N] [--folder PATH]``.

Writes a site's files and a journal with the real store, then runs the command line as an operator would and prints
seconds. Alone on the machine, or the numbers say little.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.core import lifecycle
from gateway.core.lifecycle import Rules
from gateway.core.model import DeviceId, Event, EventKind, Instant, Record, SourceName, Transition
from gateway.journal.rows import FactRow, encode_entry
from gateway.journal.schema import open_journal
from gateway.journal.store import Group, Store

SOURCE = SourceName("verifier")
PER_GROUP = 200  # rows of one commit
DAYS = 7.0

SETTINGS = """
journal: journal.db
operator: {socket: op.sock}
doors: {sediment: {listen: "127.0.0.1:8000"}}
sources:
  - {name: verifier, format: sediment, public_key: verifier.pem, verifier_id: RAP_Server, peers: [127.0.0.2]}
targets: [{name: gateway, path_gate: nft}]
inventory: devices.yaml
book: old.yaml
"""

OLD = """
services:
  - {name: feed, address: 10.77.3.2, port: 8001}
  - {name: time, address: 10.77.3.2, port: 8002, profiles: [probation, admitted]}
corridor:
  - {name: verifier, address: 10.77.2.2, port: 8100}
node_default: admitted
suspect: probation
"""

NEW = OLD.replace("suspect: probation", "suspect: deny") + "devices: {cam-1: probation, cam-2: deny}\n"


def name(number: int) -> DeviceId:
    return DeviceId(f"cam-{number}")


def transitions(verdicts: int, devices: int, begin: float) -> Iterator[Transition]:
    """Every device in turn; nine of ten verdicts pass, one fails, and two passes recover."""
    records = [Record()] * devices
    rules = Rules(max_age=1e6)
    step = DAYS * 86_400 / verdicts
    for number in range(verdicts):
        which, turn = number % devices, number // devices
        at = begin + number * step
        kind = EventKind.FAILED if (which + turn) % 10 == 0 else EventKind.PASSED
        nonce = hashlib.sha256(b"%d" % number).digest()[:16]
        event = Event(kind, at, int(at), None, nonce, "PASS" if kind is EventKind.PASSED else "FAILED_ATTEST")
        before = records[which]
        made = lifecycle.step(before, event, rules)
        records[which] = made.record
        yield Transition(name(which), SOURCE, event, before, made.record, made.effect, made.why)


def write_journal(path: Path, verdicts: int, devices: int, now: float) -> None:
    opened = open_journal(path)
    store = Store(opened.connection)
    seq = store.load("boot").next_seq
    opened.connection.execute("PRAGMA synchronous=OFF")
    stream = transitions(verdicts, devices, now - DAYS * 86_400)
    while facts := list(islice(stream, PER_GROUP)):
        at = facts[-1].event.at
        rows: list[FactRow] = [
            encode_entry(seq + n, fact, None if fact.after == fact.before else fact.after, at)
            for n, fact in enumerate(facts)
        ]
        seq += len(rows)
        store.commit(Group(rows, (), ()), Instant(at, at))
        if store.fold_due:
            store.start_fold()
        if store.logged > 1 << 26:
            store.checkpoint()
    store.close(seq)


def write_site(folder: Path, devices: int) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "verifier.pem").write_bytes(pem)
    (folder / "ragate.yaml").write_text(SETTINGS)
    (folder / "old.yaml").write_text(OLD)
    (folder / "new.yaml").write_text(NEW)
    lines = ["devices:\n"]
    for number in range(devices):
        lines.append(
            f"  - id: {name(number)}\n    source: verifier\n"
            f"    addresses: [10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}]\n    anchor: upstream\n"
            f"    labels: {{class: {'camera' if number % 3 else 'sensor'}}}\n"
        )
    (folder / "devices.yaml").write_text("".join(lines))


def run(folder: Path, *arguments: str) -> float:
    begin, spent = time.perf_counter(), _spent()
    command = [sys.executable, "-m", "gateway", *arguments, "-c", str(folder / "ragate.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    took = time.perf_counter() - begin
    said = f"ragate {' '.join(arguments)}  (exit code {done.returncode})"
    print(f"{took:8.2f} s, {_spent() - spent:.2f} s of processor time: {said}")
    print("\n".join(f"            {line}" for line in (done.stdout + done.stderr).splitlines()[:12]))
    return took


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        folder = asked.folder or Path(aside)
        folder.mkdir(exist_ok=True)
        if not (folder / "journal.db").exists():
            write_site(folder, asked.devices)
            begin = time.perf_counter()
            write_journal(folder / "journal.db", asked.verdicts, asked.devices, time.time() - 60)
            size = (folder / "journal.db").stat().st_size / 1e6
            print(f"{time.perf_counter() - begin:8.2f} s  writing {asked.verdicts} verdicts, {size:.0f} MB")
        new = str(folder / "new.yaml")
        run(folder, "plan", new)
        run(folder, "plan", new, "--replay", "8d")
        run(folder, "what-if", "cam-2", "passed", "--book", new)


if __name__ == "__main__":
    main()
