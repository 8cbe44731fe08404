"""Configuration, inventory, book and key files with anything in them: used, or refused by ``ConfigError``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.app.baseline import baseline_text
from gateway.config import find_findings, load
from gateway.core.errors import ConfigError
from gateway.simulate.keys import Keys
from tests.fuzz.mutants import mutants

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

RAGATE = b"""\
journal: var/journal.db
console: {listen: 127.0.0.1:8080, hosts: [ops.example]}
operator: {socket: var/operator.sock, group: null}
doors:
  sediment:
    listen: [0.0.0.0:8000, "[::]:8000"]
    peers: [10.77.2.0/24]
    forward_to: 127.0.0.1:8100
    limits: {connections: 4096, connections_per_peer: 64, frame_seconds: 5, queue: 4096}
sources:
  - name: verifier
    format: sediment
    public_key: verifier.pem
    verifier_id: RAP_Server
    peers: [10.77.2.2]
    max_age: 15m
    grace: 300
    recovery_passes: 2
targets:
  - {name: gateway, required: true, path_gate: nft, lease: 120}
inventory: devices.yaml
book: book.yaml
"""
DEVICES = b"""\
hmac_keys: devices.keys
devices:
  - id: cam-1
    source: verifier
    addresses: [10.77.1.11, "fd77:1::11"]
    anchor: upstream
    labels: {class: camera}
  - {id: cam-2, source: verifier, addresses: ["fd77:1:0:5::/64"], hmac_key_file: cam-2.key}
"""
BOOK = b"""\
services:
  - {name: feed, address: 10.77.3.2, port: 8001, protocol: tcp, path: routed, profiles: [admitted, probation]}
corridor:
  - {name: verifier, address: "fd77:2::2", port: 8100, protocol: udp}
always_allowed: [10.77.9.0/24]
node_default: admitted
suspect: probation
devices: {cam-1: probation}
"""

words = st.sampled_from(
    sorted({word for text in (RAGATE, DEVICES, BOOK) for word in text.decode().replace(",", " ").split()})
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | words
    | st.binary(max_size=6)
    | st.dates()
    | st.sampled_from([2**64, -1, "1:30", "0123", "~", "10.77.1.11/33", "fe80::1%eth0", "::ffff:1.2.3.4"])
)
KEYS = """
    journal console listen hosts operator socket group doors sediment peers forward_to limits sources name format
    public_key max_age targets path_gate lease relay kubearmor inventory book devices id addresses anchor labels
    hmac_keys hmac_key_file services corridor always_allowed node_default suspect port protocol profiles
"""
keys = st.sampled_from(KEYS.split())
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | words, inner, max_size=6),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    made = Keys.make(["cam-1", "cam-2"])
    made.write(folder)
    (folder / "cam-2.key").write_bytes(made.hmac["cam-2"])
    (folder / "cam-2.key").chmod(0o600)
    (folder / "devices.keys").write_text(f"cam-1 {made.hmac['cam-1'].hex()}\n")
    for name, content in (("ragate.yaml", RAGATE), ("devices.yaml", DEVICES), ("book.yaml", BOOK)):
        (folder / name).write_bytes(content)
    return folder


def attempt(pristine: Path, name: str, content: bytes) -> None:
    """Load the site with one file replaced; put the file back."""
    file = pristine / name
    kept = pristine / f"{name}.kept"
    shutil.copy2(file, kept)
    try:
        file.write_bytes(content)
        try:
            config = load(pristine / "ragate.yaml")
        except ConfigError:
            event("refused")
        else:
            event("used")
            find_findings(config)
            baseline_text(config)
    finally:
        kept.replace(file)


#: Each example writes and reads files: a share of the budget.
budget = settings(max_examples=max(1, settings().max_examples // 8))
FILES = {"ragate.yaml": RAGATE, "devices.yaml": DEVICES, "book.yaml": BOOK}
names = st.sampled_from(sorted(FILES))


def test_the_site_itself_loads(pristine: Path) -> None:
    assert [device.id for device in load(pristine / "ragate.yaml").devices] == ["cam-1", "cam-2"]


@budget
@given(names, st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_arbitrary_bytes(pristine: Path, name: str, content: bytes) -> None:
    attempt(pristine, name, content)


@budget
@given(names.flatmap(lambda name: st.tuples(st.just(name), mutants(FILES[name], most=4))))
def test_damaged_files(pristine: Path, case: tuple[str, bytes]) -> None:
    attempt(pristine, *case)


@budget
@given(names, st.dictionaries(keys, trees, max_size=8) | trees)
def test_any_yaml(pristine: Path, name: str, tree: object) -> None:
    attempt(pristine, name, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@budget
@given(names, st.data())
def test_one_value_replaced(pristine: Path, name: str, data: st.DataObject) -> None:
    """A file that is right but for one place."""
    tree = yaml.safe_load(FILES[name])
    node: Any = {"": tree}
    key: Any = ""
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 3)):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    node[key] = data.draw(trees)
    attempt(pristine, name, yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@budget
@given(st.sampled_from(["devices.keys", "cam-2.key", "verifier.pem"]), st.data())
def test_damaged_keys(pristine: Path, name: str, data: st.DataObject) -> None:
    genuine = (pristine / name).read_bytes()
    attempt(pristine, name, data.draw(mutants(genuine, most=3) | st.binary(max_size=100)))
