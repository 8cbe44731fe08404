"""The schema of the main file: the keys that the reader takes, and every example of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.document import Section
from gateway.config.schema import settings_schema
from gateway.config.settings import read_settings
from gateway.core.errors import ConfigError
from tests import posting
from tests.schemas import fits
from tests.written import RAGATE, public_pem, put

__all__ = ["public_pem"]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RELAYED = RAGATE.replace(
    "path_gate: nft", "path_gate: relay\n    relay: [{service: feed, listen: '127.0.0.1:8001'}]"
)
WHOLE = RELAYED.replace(
    "    recovery_passes: 3\n",
    "    recovery_passes: 3\n    allow_published_keys_that_anyone_can_sign_with: false\n"
    "    feed: 10.77.2.2:8101\n    api: {address: '10.77.2.2:8102', requests: 30, per: 1m}\n",
).replace(
    "inventory:",
    "  - {name: app-server, agent: app, required: true, lease: 60s, services: [feed], relays: [10.77.3.1]}\n"
    "  - {name: cluster, required: false, kubernetes: {kubeconfig: edge.conf, in_cluster: false, context: edge,\n"
    "      namespace: sediment, owner: gateway-7, nodes: {kubernetes.io/hostname: app-1}, services: [feed]}}\n"
    "agents: {listen: '10.77.3.1:8444'}\n"
    "certificates: {authority: ca.pem, certificate: gw.pem, key: gw.key, revoked: ca.crl}\n"
    "management: [10.77.9.0/24]\nsealing: {file: sealing.key}\n"
    "doctor: {sediment: [/opt/sediment], compose: [compose.yaml], kubearmor: [kubearmor.yaml]}\ninventory:",
)
WHOLE = WHOLE.replace(
    "record: /run/record.json}",
    "record: /run/record.json,\n      logs: '127.0.0.1:32768', streams: [alerts, logs, messages],\n"
    "      tls: {authority: site-ca.pem, certificate: gateway.pem, key: gateway.key, name: 10.0.0.5}}",
)
WHOLE = WHOLE.replace("doors:\n", "doors:\n  hook: {socket: hook.sock, users: [0], group: root}\n")
POSTING = """certificate: gateway.pem
    key: gateway.key
    client_ca: site-ca.pem
    client_crl: site.crl
    limits: {connections: 9, silent: 20, connections_per_peer: 4, body: 65536, request_seconds: 5, idle_seconds: 1m}
"""
WHOLE = WHOLE.replace(
    "doors:\n",
    f"doors:\n  rest:\n    listen: 0.0.0.0:8443\n    {POSTING}"
    f"  rpc:\n    listen: ['0.0.0.0:8444', '[::]:8444']\n    {POSTING}",
).replace(
    "targets:\n",
    """  - name: ear
    format: ear-jwt
    proof: both
    keys: [{id: k1, algorithm: ES256, file: ear-key.pem}]
    certificates: ['dns:ear.example']
    subject: submod
    max_age: 10m
    grace: 1m
    recovery_passes: 2
    rate: 500
  - {name: keylime, format: keylime, keys: [{id: default, file: verifier.pem}], zone: Europe/Berlin}
targets:
""",
)
#: The relying party's port in the place of SEDIMENT's own, and beside it.
RELYING = """  relying:
    listen: 10.77.1.1:8000
    app_server: feed
    mode: instead
    verifier: 10.77.2.2:8100
    here: 10.77.1.1:8000
    connections: kept
    clock_ahead: 2s
    device_settings: {report_interval: 5, enc_enabled: true, auth_enabled: true, attest_enabled: true,
      seec_enabled: false, sign_enabled: false, passport_period: 600, payload_size: 64, fixed_delay: 5,
      pass_thru_enabled: false, num_cycles: 1, iterations: 1, transport: tcp, log_level: 1, mqtt_url: none}
    limits: {connections: 10, connections_per_peer: 5, frame_seconds: 5, idle_seconds: 180, onward_seconds: 5}
"""
BESIDE = """  relying:
    listen: 10.77.1.1:8000
    app_server: feed
    mode: beside
    relying_party: 127.0.0.1:8002
"""
#: What an entry of a list is called in messages.
ENTRIES = {"sources": "a source", "targets": "a target", "relay": "a relay entry", "keys": "a key"}


def sections(schema: Mapping[str, Any], name: str = "the file") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in a schema with the name that the reader gives it, and its keys."""
    for each in schema.get("anyOf", ()):
        yield from sections(each, name)
    if "items" in schema:
        yield from sections(schema["items"], ENTRIES.get(name, name))
    if "properties" in schema:
        yield name, schema["properties"]
        for key, each in schema["properties"].items():
            yield from sections(each, key)


@pytest.fixture
def main(tmp_path: Path, public_pem: bytes) -> Path:
    put(tmp_path / "verifier.pem", public_pem)
    put(tmp_path / "ear-key.pem", posting.public_pem(posting.key_for("ear", "ES256")))
    authority = posting.Authority.make(tmp_path)
    authority.issue("gateway", server="127.0.0.1")
    authority.revoke()
    return tmp_path / "ragate.yaml"


def test_the_reader_knows_the_keys_of_the_schema_and_no_other(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, set[str]] = {}
    given: dict[str, set[str]] = {}
    original = Section.known

    def noted(self: Section, *names: str) -> None:
        known.setdefault(self.name, set()).update(names)
        given.setdefault(self.name, set()).update(key for key, _, _ in self.pairs())
        original(self, *names)

    monkeypatch.setattr(Section, "known", noted)
    instead, beside = (WHOLE.replace("doors:\n", f"doors:\n{each}") for each in (RELYING, BESIDE))
    for text in (WHOLE, WHOLE.replace("{file: sealing.key}", "{credential: sealing.key}"), instead, beside):
        put(main, text)
        read_settings(main)
    schema: dict[str, set[str]] = {}
    for name, keys in sections(settings_schema()):
        schema.setdefault(name, set()).update(keys)
    assert known == schema
    assert given == schema, "write every key into WHOLE, so that the reader is seen to take it"


@pytest.mark.parametrize("text", [RAGATE, RELAYED, WHOLE])
def test_what_the_reader_takes_fits(main: Path, text: str) -> None:
    put(main, text)
    read_settings(main)
    assert fits(yaml.safe_load(text), settings_schema())


def examples() -> Iterator[Any]:
    """Every example of this file on a page, whole or in part."""
    keys = set(dict(sections(settings_schema()))["the file"])
    for page in PAGES:
        blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for number, found in enumerate(each for block in blocks for each in yaml.safe_load_all(block)):
            if isinstance(found, dict) and found and set(found) <= keys:
                yield pytest.param(found, id=f"{page.name} {number}")


EXAMPLES = list(examples())


def test_examples_were_found() -> None:
    assert {example.id.split()[0] for example in EXAMPLES} >= {"README.md", "sediment.md", "operations.md"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_fits(example: Mapping[str, Any]) -> None:
    schema = settings_schema()
    whole = set(schema.pop("required"))  # type: ignore[call-overload]
    assert fits(example, schema)
    assert whole <= set(example) or len(example) < len(whole), "an example is whole, or plainly a part"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("journal: var/journal.db", "jornal: var/journal.db"),
        ("hosts: [gateway.example]", "host: gateway.example"),
        ("hosts: [gateway.example]", "hosts: gateway.example"),
        ("group: ops", "group: {a: b}"),
        ("operator: {socket: var/operator.sock, group: ops}", "operator: var/operator.sock"),
        ('    listen: ["0.0.0.0:8000", "[::]:8000"]\n', ""),
        ('["0.0.0.0:8000", "[::]:8000"]', "[]"),
        ('["0.0.0.0:8000", "[::]:8000"]', "0.0.0.0"),
        ("queue: 50", "queue: 0"),
        ("queue: 50", "queues: 50"),
        ("connections: 100", "connections: 1"),
        ("connections: 100", "connections: 65537"),
        ("frame_seconds: 2.5", "frame_seconds: soon"),
        ("format: sediment", "format: cose"),
        ("    public_key: verifier.pem\n", ""),
        ("verifier_id: RAP_Server", "verifier_id: ''"),
        ("peers: [10.77.2.2]", "peers: 10.77.2.2"),
        ("max_age: 15m", "max_age: 15 minutes"),
        ("recovery_passes: 3", "recovery_passes: 11"),
        ("anyone_can_sign_with: false", "anyone_can_sign_with: perhaps"),
        ("path_gate: relay", "path_gate: iptables"),
        ("{service: feed, listen: '127.0.0.1:8001'}", "{service: feed}"),
        ("tables: read", "tables: write"),
        ("record: /run", "record: run"),
        ("namespace: sediment", "namespace: Sediment"),
        ("namespace: sediment, ", ""),
        ("owner: gateway-7", "owner: gateway_7_"),
        ("nodes: {kubernetes.io/hostname: app-1}", "nodes: {}"),
        ("nodes: {kubernetes.io/hostname: app-1}", "nodes: {kubernetes.io/hostname: 'a b'}"),
        ("in_cluster: false", "in_cluster: perhaps"),
        ("format: ear-jwt", "format: ear"),
        ("proof: both", "proof: none"),
        ("algorithm: ES256", "algorithm: ES512"),
        ("{id: k1, ", "{"),
        ("'dns:ear.example'", "ear.example"),
        ("rate: 500", "rate: 0"),
        ("listen: 0.0.0.0:8443\n    certificate", "listen: []\n    certificate"),
        ("listen: 0.0.0.0:8443\n", "listen: 0.0.0.0:8443\n    client: x\n"),
        ("inventory: devices.yaml\n", ""),
        ("book: policies/book.yaml\n", ""),
        ("management: [10.77.9.0/24]", "management: 10.77.9.0/24"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_reader_too(main: Path, old: str, new: str) -> None:
    assert WHOLE.count(old) == 1
    text = WHOLE.replace(old, new)
    put(main, text)
    assert not fits(yaml.safe_load(text), settings_schema())
    with pytest.raises(ConfigError):
        read_settings(main)
