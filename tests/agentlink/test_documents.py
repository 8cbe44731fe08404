"""Documents of profiles over a real link: told whole, the newest wins, kept when the link is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agentlink import documents as module
from gateway.agentlink import messages as wire
from gateway.agentlink.documents import Pieces, RemoteDocuments, pack, read_declared
from gateway.app.documents import FILE, NO_KUBEARMOR, ToldDocuments
from gateway.core.errors import ConfigError
from gateway.kubearmor.documents import Document
from gateway.kubearmor.render import Library, Renderer
from tests.agentlink.pair import PATIENCE, Pair, site_certificates, until
from tests.kubearmor.test_render import FEED, HOST, MANY, NETWORK, container, templates

LIBRARY = Library({"quarantine": templates("quarantine", FEED, HOST, NETWORK)}, {})
KINDS = {"app": ("network", "host", "container")}


def rendered(count: int) -> tuple[Document, ...]:
    renderer = Renderer(LIBRARY, KINDS)
    for each in MANY[:count]:
        renderer.move(each, "quarantine")
    return renderer.render("normal").at("app")


class Layer:
    """A KubeArmor hand that notes what it is given, and says what it is told to."""

    def __init__(self, documents: str = "verified") -> None:
        self.declared: list[tuple[Sequence[Document], frozenset[str]]] = []
        self.documents = documents

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        self.declared.append((documents, absent))

    def state(self) -> Mapping[str, str]:
        return {"state": "connecting", "documents": self.documents, "documents_detail": f"{self.documents} there"}


class Host:
    """An agent's host: its state folder, and its KubeArmor if it has one."""

    def __init__(self, folder: Path, layer: Layer | None) -> None:
        self.said: list[str] = []
        self.layer = layer
        self.told = ToldDocuments(folder, lambda _, what: self.said.append(what), kubearmor=layer is not None)
        if layer is not None:
            self.told.use(layer)

    @property
    def names(self) -> list[str]:
        assert self.layer is not None
        return [document.name for document in self.layer.declared[-1][0]] if self.layer.declared else []

    async def turn(self) -> None:
        await self.told.turn()


def joined(pair: Pair, host: Host) -> None:
    pair.declared, pair.advised = host.told.take, host.told.advised


async def settled(pair: Pair, host: Host, state: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while (told := pair.documents.state())["state"] != state:
        await host.turn()
        await asyncio.sleep(0.01)
        assert time.monotonic() < deadline, (told, host.said, pair.states)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(site_certificates(tmp_path / "certs", "app"))


async def test_documents_reach_the_agents_host_and_their_outcome_comes_back(pair: Pair, tmp_path: Path) -> None:
    host = Host(tmp_path, Layer())
    joined(pair, host)
    pair.documents.declare_documents(rendered(2), frozenset({"70-block-other"}))
    assert pair.documents.state()["state"] == "waiting"
    async with pair.listening(), pair.agent():
        await settled(pair, host, "verified")
        assert host.layer is not None
        documents, absent = host.layer.declared[-1]
        assert [each.render() for each in documents] == [each.render() for each in rendered(2)]
        assert absent == {"70-block-other"}
        assert pair.documents.state()["detail"] == "verified there"
        first = documents[0]
        # the newest wins, what did not change is the same object, and what is not wanted goes
        pair.documents.declare_documents(rendered(2)[:1])
        await until(lambda: pair.documents.state()["state"] == "waiting")
        await settled(pair, host, "verified")
        newest, absent = host.layer.declared[-1]
        assert (len(newest), absent) == (1, frozenset())
        assert newest[0] is first
        host.layer.documents = "failed"
        await settled(pair, host, "failed")
        pair.documents.declare_documents(())
        host.layer.documents = "idle"
        await settled(pair, host, "idle")
        assert host.names == []
        assert not pair.documents.concerned


async def test_a_lost_link_takes_nothing_away_and_what_changed_is_told_after(pair: Pair, tmp_path: Path) -> None:
    host = Host(tmp_path, Layer())
    joined(pair, host)
    pair.documents.declare_documents(rendered(1))
    async with pair.listening():
        async with pair.agent():
            await settled(pair, host, "verified")
        await until(lambda: "is away" in pair.documents.state()["detail"])
        assert pair.documents.state()["state"] == "waiting"
        assert len(host.names) == 3
        pair.documents.declare_documents(rendered(2)[:2])
        # the agent's host starts anew meanwhile: what was told before stands again, without the gateway
        again = Host(tmp_path, Layer())
        await again.turn()
        assert again.names == host.names
        assert again.told.advised() is None
        joined(pair, again)
        async with pair.agent():
            await settled(pair, again, "verified")
            assert again.names == [each.name for each in rendered(2)[:2]]


async def test_a_gateway_that_starts_anew_takes_away_what_is_not_wanted(pair: Pair, tmp_path: Path) -> None:
    host = Host(tmp_path, Layer())
    joined(pair, host)
    pair.documents.declare_documents(rendered(1))
    async with pair.agent():
        async with pair.listening():
            await settled(pair, host, "verified")
        pair.documents = RemoteDocuments("app")
        async with pair.listening():
            await until(lambda: not pair.gate.why)
            assert len(host.names) == 3, "as long as it has not been told"
            pair.documents.declare_documents(())
            host.layer.documents = "idle"  # type: ignore[union-attr]
            await settled(pair, host, "idle")
            assert host.names == []


async def test_ends_of_different_versions_say_so_and_the_path_gate_works(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PROTOCOLS", (1, 2))
    host = Host(tmp_path, Layer())
    joined(pair, host)
    pair.documents.declare_documents(rendered(1))
    async with pair.listening() as hub, pair.agent():
        await pair.attached()
        await until(lambda: hub.states()["app"].not_after)
        told = pair.documents.state()
        assert told["state"] == "failed"
        assert "speaks link protocol 2" in told["detail"]
        assert "upgrade" in told["detail"]
        assert host.layer is not None
        assert host.layer.declared == []


async def test_a_host_without_kubearmor_says_so(pair: Pair, tmp_path: Path) -> None:
    host = Host(tmp_path, None)
    joined(pair, host)
    pair.documents.declare_documents(rendered(1))
    async with pair.listening(), pair.agent():
        await settled(pair, host, "failed")
        assert pair.documents.state()["detail"] == NO_KUBEARMOR
        pair.documents.declare_documents(())
        await settled(pair, host, "idle")


REFUSED = [
    pytest.param(b"{", id="no document"),
    pytest.param(FEED.replace("KubeArmorPolicy", "KubeArmorClusterPolicy").encode(), id="of a cluster"),
    pytest.param(container("bad", "dir: relative, recursive: true").encode(), id="not enforceable"),
    pytest.param((FEED + "---\n" + HOST).encode(), id="two"),
]


@pytest.mark.parametrize("text", REFUSED)
async def test_what_cannot_be_enforced_is_refused_and_the_older_ones_stand(text: bytes, tmp_path: Path) -> None:
    host = Host(tmp_path, Layer())
    good = container("20-good", "dir: /usr/bin/, recursive: true").encode()
    host.told.take(1, wire.Declared((good,), ()))
    await host.turn()
    assert host.names == ["20-good"]
    host.told.take(2, wire.Declared((good, text), ()))
    told = host.told.advised()
    assert told is not None
    assert told.state == "waiting"
    await host.turn()
    told = host.told.advised()
    assert told is not None
    assert (told.serial, told.state) == (2, "failed")
    assert "older ones stand" in told.detail
    assert host.said
    assert host.names == ["20-good"]
    host.told.take(3, wire.Declared((), ()))
    await host.turn()
    assert host.names == []


async def test_two_documents_of_one_name_are_refused(tmp_path: Path) -> None:
    host = Host(tmp_path, Layer())
    one, two = (container("20-same", f"dir: /{name}/, recursive: true").encode() for name in ("a", "b"))
    host.told.take(1, wire.Declared((one, two), ()))
    await host.turn()
    told = host.told.advised()
    assert told is not None
    assert told.state == "failed"


def test_a_damaged_file_is_told_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="delete it"):
        Host(tmp_path, Layer())


async def test_documents_that_cannot_be_kept_stand_all_the_same(tmp_path: Path) -> None:
    host = Host(tmp_path / "gone", Layer())
    host.told.take(1, wire.Declared((container("20-good", "dir: /usr/, recursive: true").encode(),), ()))
    await host.turn()
    assert host.names == ["20-good"]
    assert host.said


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(1, 50))
def test_pieces_make_the_whole(texts: list[bytes], size: int) -> None:
    before = module.PIECE_BYTES
    module.PIECE_BYTES = size
    try:
        declared = wire.Declared(tuple(texts), ("70-x",))
        pieces = list(pack(7, declared))
        taken = Pieces()
        # one of an earlier telling that was not finished
        assert taken.take(wire.Piece(6, b"rubbish", last=False)) is None
        found = [taken.take(wire.read_from_gateway(wire.encode(piece))) for piece in pieces]  # type: ignore[arg-type]
    finally:
        module.PIECE_BYTES = before
    assert found[:-1] == [None] * (len(pieces) - 1)
    assert found[-1] == (7, declared)
    assert all(len(piece.data) <= size for piece in pieces)


@given(st.binary(max_size=200))
def test_nothing_but_a_declared_error_comes_of_bytes(data: bytes) -> None:
    with contextlib.suppress(wire.LinkProtocolError):
        read_declared(data)


def test_more_than_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECLARED_BYTES", 10)
    taken = Pieces()
    taken.take(wire.Piece(1, b"123456", last=False))
    with pytest.raises(wire.LinkProtocolError, match="more than"):
        taken.take(wire.Piece(1, b"123456", last=False))


def test_an_outcome_that_there_is_not_ends_the_link() -> None:
    with pytest.raises(wire.LinkProtocolError):
        RemoteDocuments("app").advised(wire.Advised(1, "wonderful", ""))
