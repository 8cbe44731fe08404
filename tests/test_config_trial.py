"""A book held against a running service: what a start would find, and what only a running service can say."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.config import read_library, trial
from gateway.config.book import read_book
from gateway.config.digest import book_digest
from gateway.config.trial import Ground, try_book
from gateway.core.errors import ConfigError
from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId, SourceName
from gateway.core.policy import Book, Links, zone_of
from gateway.kubearmor.render import Library

BOOK = """\
profiles: profiles/
services:
  - {name: feed, address: 10.77.3.2, port: 8001}
corridor:
  - {name: verifier, address: 10.77.2.2, port: 8100}
node_default: admitted
"""
PROFILE = "rank: 60\ndocuments: [feeds.yaml]\n"
FEEDS = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: 60-feeds}
spec:
  selector: {matchLabels: {kubearmor.io/container.name: app$}}
  file:
    matchDirectories:
      - {dir: "/srv/feeds/${device.id}/", recursive: true}
  action: Block
"""
LINKS = Links(verifiers=(ip_network("10.77.2.2/32"),))


def device(name: str, address: str) -> Device:
    own = DeviceId(name)
    return Device(own, SourceName("s"), Binding(own, (Address.parse(address),), AnchorKind.UPSTREAM))


DEVICES = (device("cam-1", "10.77.1.11"), device("cam-2", "10.77.1.12"))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    home = tmp_path / "profiles" / "visitor"
    home.mkdir(parents=True)
    (home / "profile.yaml").write_text(PROFILE)
    (home / "feeds.yaml").write_text(FEEDS)
    (tmp_path / "book.yaml").write_text(BOOK)
    return tmp_path / "book.yaml"


def ground(path: Path, relayed: tuple[str, ...] = ()) -> Ground:
    return Ground(path, read_book(path).book, LINKS, "gateway", relayed, ("hook",))


def refusal(made: Ground, devices: tuple[Device, ...] = DEVICES) -> str:
    with pytest.raises(ConfigError) as caught:
        try_book(made, devices)
    return str(caught.value)


def test_a_good_book_comes_with_its_templates_and_digest(book: Path) -> None:
    fit = try_book(ground(book), DEVICES)
    assert set(fit.book.profiles) == {"deny", "probation", "admitted", "visitor"}
    assert [template.document.name for template in fit.library.devices["visitor"]] == ["60-feeds"]
    assert fit.warnings == ()
    assert len(fit.digest) == 64


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("node_default", "node_defalt", "book.yaml:6:1: 'node_defalt' is not known in the file"),
        ("node_default: admitted", "suspect: deny\nsuspect: deny", "book.yaml:7:1: 'suspect' stands here twice"),
        ("port: 8001", "port: 0", "book.yaml:3:44: port '0' must be a whole number"),
        ("node_default", "targets: {edge: {kinds: [network]}}\nnode_default", "the main file has no target 'edge'"),
        ("node_default", "devices: {cam-9: deny}\nnode_default", "device cam-9: the book gives it a profile, but"),
        ("10.77.3.2", "10.77.1.11", "cutting one would cut the other"),
        ("  - {name: verifier, address: 10.77.2.2, port: 8100}\n", "  []\n", "verifier is gone"),
        (
            "node_default",
            "cut_on_hints: [hock]\nnode_default",
            "no source of hints named 'hock'; did you mean 'hook'?",
        ),
        ("node_default", "always_allowed: [10.77.1.0/24]\nnode_default", "it would never be gated"),
        ("node_default", "always_allowed: [0.0.0.0/0]\nnode_default", "it allows every client"),
        ("profiles/", "elsewhere/", "cannot be read: No such file"),
    ],
)
def test_what_a_start_would_find_is_found(book: Path, old: str, new: str, said: str) -> None:
    made = ground(book)
    assert old in BOOK
    book.write_text(BOOK.replace(old, new, 1))
    assert said in refusal(made)


def test_the_documents_are_tried_for_every_device(book: Path) -> None:
    long = device("x" * 60, "10.77.1.13")
    assert "visitor/feeds.yaml:8:" in refusal(ground(book), (*DEVICES, long))


def test_what_the_relay_listens_for_stays_in_the_book(book: Path) -> None:
    assert "the book has no such service" in refusal(ground(book, ("feed", "gone")))
    book.write_text(BOOK.replace("port: 8001", "port: 8001, protocol: udp"))
    assert "the relay carries TCP only" in refusal(ground(book, ("feed",)))


def test_a_profile_without_a_place_at_the_gate_is_found(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No book that can be read has one; the trial does not rely on that."""
    empty = zone_of(Book())._replace(reaches={})
    monkeypatch.setattr(trial, "zone_of", lambda _book: empty)
    assert "for which the path gate has no set" in refusal(ground(book))


def test_a_book_written_while_it_is_read_is_refused(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(made: Book) -> Library:
        (book.parent / "profiles" / "visitor" / "profile.yaml").write_text("rank: 61\ndocuments: [feeds.yaml]\n")
        return read_library(made)

    monkeypatch.setattr(trial, "read_library", slow)
    assert "was written while it was read" in refusal(ground(book))


def test_the_digest_is_of_every_file_that_the_book_is_made_of(book: Path) -> None:
    def digest() -> str:
        placed = read_book(book)
        return book_digest(book, placed.book, placed.places)

    seen = [digest()]
    for name, text in (
        ("book.yaml", BOOK + "# a word\n"),
        ("profiles/visitor/profile.yaml", PROFILE + "# a word\n"),
        ("profiles/visitor/feeds.yaml", FEEDS + "# a word\n"),
    ):
        (book.parent / name).write_text(text)
        seen.append(digest())
    (book.parent / "profiles" / "visitor" / "notes.txt").write_text("nothing of the book")
    assert digest() == seen[-1]
    assert len(set(seen)) == 4


def test_warnings_come_with_the_book(book: Path) -> None:
    made = ground(book)
    book.write_text(BOOK + "classes:\n  - {name: none, match: {id: 'x*'}, standings: deny}\n")
    (warning,) = try_book(made, DEVICES).warnings
    assert (warning.subject, warning.severity) == ("class none", "warning")
