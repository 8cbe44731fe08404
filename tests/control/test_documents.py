"""From a device's change of profile to what the advisory layers are told of documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from gateway.control import documents as module
from gateway.control.documents import Documents
from gateway.core.model import Address, Device, Standing
from gateway.core.policy import Book, Profile
from gateway.kubearmor.documents import Document
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.render import Library, Renderer, Rendering
from tests.control.world import World, device, running
from tests.kubearmor.test_render import FEED, NETWORK, container, templates

TARGET = "gateway"
KINDS = {TARGET: ("container", "network")}
BOOK = Book(
    node_default="admitted",
    suspect="deny",
    others={Standing.DISTRUSTED: "quarantine"},
    profiles={"quarantine": Profile("quarantine", 10, ())},
)
LIBRARY = Library(
    {"quarantine": templates("quarantine", FEED, NETWORK)},
    {"lockdown": templates("lockdown", container("80-shut", "dir: /srv/feeds/, recursive: true"), site=True)},
)


class Told:
    """An advisory layer that remembers the documents it was told."""

    name = "kubearmor"

    def __init__(self) -> None:
        self.documents: list[Sequence[Document]] = []
        self.absent: frozenset[str] = frozenset()

    def declare(self, admitted: frozenset[Address]) -> None:
        raise AssertionError(admitted)

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        self.documents.append(documents)
        self.absent = absent

    def state(self) -> Mapping[str, str]:
        return {}

    async def run(self) -> None:
        raise AssertionError

    @property
    def names(self) -> list[str]:
        return [document.name.rpartition("-")[0] for document in self.documents[-1]]


class Counting(Renderer):
    """Counts what it is asked."""

    def __init__(self, library: Library = LIBRARY) -> None:
        super().__init__(library, KINDS)
        self.moves: list[tuple[str, str]] = []
        self.renderings = 0
        self.refusal = ""

    def move(self, device: Device, profile: str) -> None:
        self.moves.append((device.id, profile))
        super().move(device, profile)

    def render(self, site: str) -> Rendering:
        self.renderings += 1
        if self.refusal:
            raise DocumentRefused(self.refusal)
        return super().render(site)


def made(world: World, renderer: Counting, site: Callable[[], str] = lambda: "normal") -> tuple[Documents, Told]:
    told = Told()
    return Documents(world.devices, renderer, {TARGET: told}, world.clock, site), told


async def test_only_devices_that_come_to_or_leave_a_documented_profile_are_looked_at() -> None:
    async with running(book=BOOK) as world:
        renderer = Counting()
        documents, told = made(world, renderer)
        await documents.turn()
        assert told.names == []
        assert len(told.absent) == 1
        renderer.moves.clear()
        await world.passes("cam-1")
        assert documents.pending == 0
        await documents.turn()
        assert (renderer.moves, len(told.documents)) == ([], 1)
        await world.fails("cam-1")
        assert documents.pending == 1
        await documents.turn()
        assert renderer.moves == [("cam-1", "quarantine")]
        assert told.names == ["60-container-feeds", "70-network-block"]
        assert "/srv/feeds/cam-1/" in str(told.documents[-1])
        world.clock.advance(1)
        await world.passes("cam-1")
        world.clock.advance(1)
        await world.passes("cam-1")
        await documents.turn()
        assert told.names == []


async def test_many_changes_are_one_rendering_of_the_newest() -> None:
    inventory = [device(f"cam-{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(300)]
    async with running(book=BOOK, inventory=inventory) as world:
        renderer = Counting()
        documents, told = made(world, renderer)
        await documents.turn()
        for each in inventory:
            await world.fails(each.id)
        await documents.turn()
        assert renderer.renderings == 2
        assert told.names == ["60-container-site-feeds", "70-network-block"]


async def test_a_document_that_did_not_change_is_the_same_object() -> None:
    async with running(book=BOOK) as world:
        site = ["normal"]
        documents, told = made(world, Counting(), lambda: site[0])
        await world.fails("cam-1")
        await documents.turn()
        before = {each.name: each for each in told.documents[-1]}
        site[0] = "lockdown"
        await documents.turn()
        assert told.names == ["60-container-feeds", "70-network-block", "80-container-shut"]
        after = {each.name: each for each in told.documents[-1]}
        assert all(after[name] is each for name, each in before.items())
        await world.fails("cam-2")
        await documents.turn()
        again = {each.name: each for each in told.documents[-1]}
        (shut,) = (name for name in again if name.startswith("80-"))
        assert again[shut] is after[shut]


async def test_another_library_is_taken_for_every_device() -> None:
    async with running(book=BOOK) as world:
        documents, told = made(world, Counting(Library()))
        await world.fails("cam-1")
        await documents.turn()
        assert told.names == []
        renderer = Counting()
        documents.use(renderer)
        await documents.turn()
        assert sorted(renderer.moves) == [("cam-1", "quarantine"), ("cam-2", "deny")]
        assert told.names == ["60-container-feeds", "70-network-block"]


async def test_what_cannot_be_made_leaves_the_older_and_is_told_once() -> None:
    async with running(book=BOOK) as world:
        renderer = Counting()
        documents, told = made(world, renderer)
        await documents.turn()
        renderer.refusal = "feeds.yaml:8:15: no"
        for name in ("cam-1", "cam-2"):
            await world.fails(name)
            await documents.turn()
        assert len(told.documents) == 1
        (notice,) = world.facts.notices("backend-error")
        assert notice.subject == "kubearmor"
        assert notice.detail.endswith("the older ones stand: feeds.yaml:8:15: no")
        renderer.refusal = ""
        world.clock.advance(1)
        await world.passes("cam-2")
        world.clock.advance(1)
        await world.passes("cam-2")
        await documents.turn()
        assert "/srv/feeds/cam-1/" in str(told.documents[-1])


async def test_it_runs_by_itself_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACE", 0.01)
    async with running(book=BOOK) as world:
        site = ["normal"]
        renderer = Counting()
        documents, told = made(world, renderer, lambda: site[0])
        task = asyncio.create_task(documents.run())
        async with asyncio.timeout(60):
            while not told.documents:
                await asyncio.sleep(0.005)
            await world.fails("cam-1")
            while not told.names:
                await asyncio.sleep(0.005)
            site[0] = "lockdown"
            documents.wake()
            while "80-container-shut" not in told.names:
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
