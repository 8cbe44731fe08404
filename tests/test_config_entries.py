"""The inventory's two readers agree on every text that the short one takes; it leaves the rest to the other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.document import Problems
from gateway.config.entries import Entry, read_any, read_common, read_entries
from gateway.config.imports import inventory_text
from gateway.core.errors import ConfigError

FILE = Path("devices.yaml")

GOOD = """\
# the cameras of hall 3
hmac_keys: devices.keys

devices:
  # by the door
  - id: cam-1
    source: verifier
    addresses: [10.77.1.11, "fd77:1::11"]
    anchor: upstream
    hmac_key_file: keys/cam-1.key
    labels: {class: camera, hall: "3"}

  - id: "aa:bb"
    source: "verifier"
    addresses: ["fd77:1:0:2::/64"]
"""


def general(text: str) -> tuple[str, tuple[Entry, ...]]:
    problems = Problems()
    read = read_any(text, FILE, problems)
    problems.settle()
    return read.hmac_keys, read.entries


def test_the_common_form_and_its_places() -> None:
    read = read_common(GOOD, FILE)
    assert read is not None
    assert read.entries == (
        Entry(
            "cam-1",
            "verifier",
            ("10.77.1.11", "fd77:1::11"),
            "upstream",
            "keys/cam-1.key",
            (("class", "camera"), ("hall", "3")),
        ),
        Entry("aa:bb", "verifier", ("fd77:1:0:2::/64",), "none", "", ()),
    )
    assert (read.hmac_keys, read.keys_where) == ("devices.keys", "devices.yaml:2:12")
    any_form = read_any(GOOD, FILE, Problems())
    assert (any_form.hmac_keys, any_form.keys_where) == (read.hmac_keys, read.keys_where)
    assert any_form.entries == read.entries
    for number, key in (
        (0, "id"),
        (0, "source"),
        (0, "addresses"),
        (0, "anchor"),
        (0, "hmac_key_file"),
        (0, "labels"),
        (1, "id"),
        (1, "addresses"),
    ):
        assert read.where(number, key) == any_form.where(number, key)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- id: cam-1", "- id: null"),
        ("- id: cam-1", "-  id: cam-1"),
        ("- id: cam-1", "- id: cam-1 # door"),
        ("- id: cam-1", "- id: &x cam-1"),
        ("- id: cam-1", "- id: 'cam-1'"),
        ("class: camera", "class: camera, class: sensor"),
        ("class: camera", "class: null"),
        ("class: camera", "class: a camera"),
        ("    anchor: upstream\n", "    anchor: upstream\n    anchor: none\n"),
        ("  # by the door\n", "\t# by the door\n"),
        ("devices:\n", "devices:\r\n"),
        ("devices:\n", "devices:\n---\n"),
        ("# the cameras of hall 3", "# the cameras of hall \x00"),
        ("10.77.1.11, ", "10.77.1.11 , "),
        ("10.77.1.11, ", "10.77.1.11,\n      "),
    ],
)
def test_whatever_is_not_certain_is_left_to_the_general_reader(old: str, new: str) -> None:
    assert GOOD.count(old) == 1
    assert read_common(GOOD.replace(old, new), FILE) is None


def test_the_reader_of_both_falls_back(tmp_path: Path) -> None:
    flow = "devices:\n  - {id: cam-1, source: verifier, addresses: [10.0.0.1], anchor: l2}\n"
    assert read_common(flow, FILE) is None
    read = read_entries(flow, FILE, Problems())
    assert read.entries == (Entry("cam-1", "verifier", ("10.0.0.1",), "l2", "", ()),)


words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,8}", fullmatch=True) | st.sampled_from(
    ["null", "true", "no", "y", "1.5", "12", "0x1f", "2026-11-21", "1:30", "Null", "a b", "é", "#x", ""]
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
entries = st.builds(
    Entry,
    words,
    words,
    st.lists(st.ip_addresses().map(str) | words, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["l2", "l3", "upstream", "none"]),
    words,
    st.dictionaries(names, words, max_size=3).map(lambda labels: tuple(labels.items())),
    st.lists(names, max_size=2).map(tuple),
    words,
    words,
    words,
    words,
)


@settings(max_examples=50)
@given(st.lists(entries, max_size=3), words)
def test_what_we_write_is_read_as_it_was(listed: list[Entry], hmac_keys: str) -> None:
    text = inventory_text(listed, hmac_keys, ["é\nleft out"])
    assert general(text) == (hmac_keys, tuple(listed))
    read = read_entries(text, FILE, Problems())
    assert (read.hmac_keys, read.entries) == (hmac_keys, tuple(listed))


plain = st.builds(
    Entry,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,8}", fullmatch=True),
    st.just("verifier"),
    st.lists(st.ip_addresses().map(str), min_size=1, max_size=3).map(tuple),
    st.just("l2"),
    st.sampled_from(["", "keys/a.key"]),
    st.sampled_from([(), (("class", "camera"),)]),
    st.just(()),
    st.sampled_from(["", "15m", "900", "90.5"]),
    st.sampled_from(["", "3"]),
    st.sampled_from(["", "cams", "eth0.100", "wg@x"]),
    st.sampled_from(["", "02:00:5e:10:00:0b", "02-00"]),
)

#: What a text is damaged with: every mark that YAML gives a meaning.
PIECES = ["", "\n", " ", "#", ":", ", ", '"', "null", "- ", "{", "]", "\t", "~", "x: y\n", "é"]


@given(st.lists(plain, min_size=1, max_size=3), st.randoms(use_true_random=False), st.integers(0, 3))
def test_the_readers_agree_on_whatever_the_short_one_takes(
    listed: list[Entry], chance: random.Random, mutations: int
) -> None:
    text = inventory_text(listed, "devices.keys")
    for _ in range(mutations):
        at = chance.randrange(len(text))
        piece = chance.choice(PIECES)
        text = text[:at] + piece + text[at + chance.choice([0, 1]) :]
    read = read_common(text, FILE)
    if mutations == 0:
        assert read is not None
    if read is not None:
        assert general(text) == (read.hmac_keys, read.entries)


@given(st.text(max_size=60) | st.text("devics: -[]{}\n\"'&*!#|>?", max_size=60))
def test_any_text_gives_entries_or_the_declared_error(text: str) -> None:
    try:
        general(text)
    except ConfigError as error:
        assert str(error).startswith("devices.yaml")  # noqa: PT017 - both ways out are good
