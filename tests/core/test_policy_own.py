"""A device's own maximum age and recovery, from the inventory, beside what book and source say."""

from __future__ import annotations

from gateway.core.lifecycle import Rules
from gateway.core.model import Binding, Device, DeviceId, SourceName
from gateway.core.policy import Book, Level, rules_for

CAM = DeviceId("cam-1")
SOURCE = SourceName("verifier")


def device(max_age: float | None = None, passes: int | None = None) -> Device:
    return Device(CAM, SOURCE, Binding(CAM, ()), max_age=max_age, recovery_passes=passes)


def weighed(own: Device, said: Level | None = None) -> tuple[float, int]:
    book = Book() if said is None else Book(devices={CAM: said})
    found = rules_for(own, Rules(max_age=900.0, recovery_passes=2), book)
    return found.max_age, found.recovery_passes


def test_without_a_word_the_sources_rules_hold_as_they_are() -> None:
    rules = Rules()
    assert rules_for(device(), rules, Book()) is rules


def test_what_the_inventory_says_is_before_the_source() -> None:
    assert weighed(device(1_800.0, 3)) == (1_800.0, 3)
    assert weighed(device(max_age=60.0)) == (60.0, 2)
    assert weighed(device(passes=1)) == (900.0, 1)


def test_of_book_and_inventory_the_stricter_holds() -> None:
    own = device(1_800.0, 3)
    assert weighed(own, Level(max_age=60.0, recovery_passes=1)) == (60.0, 3)
    assert weighed(own, Level(max_age=7_200.0, recovery_passes=5)) == (1_800.0, 5)
    assert weighed(own, Level(max_age=60.0)) == (60.0, 3)
    assert weighed(own, Level(recovery_passes=5)) == (1_800.0, 5)


def test_the_book_alone_is_taken_as_it_is() -> None:
    assert weighed(device(), Level(max_age=7_200.0, recovery_passes=1)) == (7_200.0, 1)
