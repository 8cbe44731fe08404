"""What a relay of DATA goes by while one book gives way to another."""

from __future__ import annotations

from ipaddress import ip_address

from gateway.app.parts import relying_port
from gateway.control.running import Books, RunningBook
from gateway.core.model import DeviceId
from gateway.core.policy import Book, Service, compile_book
from gateway.kubearmor.render import Library
from tests.control.world import INVENTORY, running

CAM = DeviceId("cam-1")
FEED = Service("feed", ip_address("10.77.3.2"), 8001, "tcp", "relayed")
STATUS = Service("status", ip_address("10.77.3.2"), 8051, "tcp", "relayed")


def book(*services: Service) -> Book:
    return compile_book(Book(services=services, node_default="admitted", suspect="deny"), INVENTORY)


def now_runs(made: Book) -> RunningBook:
    return RunningBook(made, Library(), "digest", "book.yaml", 0.0)


async def test_while_books_change_a_profile_reaches_what_both_allow_and_everybody_is_asked_about_afterwards() -> (
    None
):
    first, second = book(FEED), book(STATUS)
    async with running(book=first) as world:
        books = Books(now_runs(world.devices.book))
        standings = relying_port.standings(world.devices, world.clock, books)
        world.devices.tell_standings(standings)
        await world.passes("cam-1")
        assert standings.until(CAM, "feed") > 0.0
        assert standings.until(CAM, "status") == 0.0
        told: list[DeviceId] = []
        standings.follow(told.append)
        world.devices.book = second  # as the change of books does, before any device is decided anew
        assert standings.until(CAM, "feed") == 0.0
        assert standings.until(CAM, "status") == 0.0
        books.take(now_runs(second))
        assert told == [CAM]
        assert standings.until(CAM, "feed") == 0.0
        assert standings.until(CAM, "status") > 0.0


async def test_a_device_that_the_change_wishes_anew_is_told_of() -> None:
    first = book(FEED)
    async with running(book=first) as world:
        standings = relying_port.standings(world.devices, world.clock, Books(now_runs(world.devices.book)))
        world.devices.tell_standings(standings)
        await world.passes("cam-1")
        slot = world.devices.slot(CAM)
        assert slot is not None
        world.devices.book = compile_book(Book(services=(FEED,), node_default="deny", suspect="deny"), INVENTORY)
        world.devices.redecide(slot, world.clock.now())
        world.devices.tell(slot)
        assert standings.until(CAM, "feed") == 0.0
