"""The path gate is built from the book's profiles."""

from __future__ import annotations

from ipaddress import ip_address

from gateway.app.parts.gates import reaches
from gateway.core.policy import Book, Profile, Service

FEED = Service("feed", ip_address("10.77.3.2"), 8001)
STATUS = Service("status", ip_address("10.77.3.2"), 8051, profiles=("probation", "admitted"))


def test_the_first_version_has_two_sets() -> None:
    assert reaches(Book((FEED, STATUS))) == {
        "probation": frozenset({"status"}),
        "admitted": frozenset({"feed", "status"}),
    }
    assert list(reaches(Book())) == ["probation", "admitted"]


def test_every_profile_that_admits_has_a_set_lowest_first() -> None:
    book = Book(
        (FEED, STATUS),
        profiles={
            "maintenance": Profile("maintenance", 70, ("status",)),
            "quarantine": Profile("quarantine", 10, ()),
            "all_of_it": Profile("all_of_it", 200, "all"),
            "lockdown": Profile("lockdown", site=True),
        },
    )
    assert list(reaches(book)) == ["probation", "maintenance", "admitted", "all_of_it"]
    assert reaches(book)["maintenance"] == {"status"}
    assert reaches(book)["all_of_it"] == {"feed", "status"}
