"""Decisions and their chains word for word, at the places where a small change to the law would show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from gateway.core.model import DENY, Address, Binding, Decision, Device, DeviceId, SourceName, Standing
from gateway.core.policy import (
    ADMITTED,
    KINDS,
    PROBATION,
    Book,
    Condition,
    Deployment,
    DeviceClass,
    Level,
    Match,
    Override,
    Profile,
    Service,
    SiteProfile,
    compile_book,
    decide,
    decide_site,
    matches,
    quorum_for,
    rank,
    tighter,
)

S = Standing
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")
FEED = Service("feed", ip_address("10.77.3.2"), 8001)
TIME = Service("time", ip_address("10.77.3.2"), 8002, profiles=("quarantine", PROBATION, ADMITTED))
PROFILES: Mapping[str, Profile] = {
    "quarantine": Profile("quarantine", 10, ()),
    "tiny": Profile("tiny", 5),
    "lockdown": Profile("lockdown", site=True),
}
BOOK = Book((FEED,), node_default=ADMITTED, suspect=PROBATION, profiles=PROFILES)
END = 1_795_284_300.0
NOW = END - 20.0


def device(name: str = "cam-1", address: str = "10.77.1.11", **labels: str) -> Device:
    bound = Binding(DeviceId(name), (Address.parse(address),))
    return Device(DeviceId(name), SourceName("verifier"), bound, tuple(labels.items()))


CAMERA = device("cam-1", kind="camera")
CAMERAS = Match(labels=(("kind", "camera"),))


def last(standing: Standing, deadline: float | None, book: Book) -> tuple[str, float | None, str]:
    decision = decide(CAMERA, standing, deadline, book)
    return decision.profile, decision.until, decision.chain[-1]


# --- reach --------------------------------------------------------------------------------------------------------


def test_reach_is_what_is_named_as_far_as_higher_ranks_reach_it() -> None:
    both = replace(BOOK, services=(FEED, replace(TIME, profiles=(ADMITTED,))))
    made = {
        "one": Profile("one", 70, ("time",)),
        "same": Profile("same", 70, ("feed",)),
        "more": Profile("more", 60, "all"),
    }
    book = replace(both, profiles=made)
    assert book.listed("one") == (book.services[1],)
    assert book.listed("more") == book.services
    assert book.reach("one") == (book.services[1],), "an equal rank takes nothing away"
    assert book.reach("same") == (FEED,)
    assert book.reach("more") == ()
    assert replace(both, profiles={"more": made["more"]}).reach("more") == both.services


def test_only_device_profiles_that_reach_something_admit() -> None:
    assert [name for name in BOOK.profiles if BOOK.profiles[name].admits] == [PROBATION, ADMITTED, "tiny"]


@pytest.mark.parametrize(
    ("name", "number"), [(DENY, 0), ("quarantine", 10), (PROBATION, 50), (ADMITTED, 100), ("gone", 0)]
)
def test_ranks(name: str, number: int) -> None:
    assert BOOK.rank(name) == number
    if name != "gone":
        assert rank(name, BOOK) == number


# --- matching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "meant"),
    [
        ("cam-*", "card-1", False),
        ("cam-*", "cam", False),
        ("cam-*", "camX1", False),
        ("cam-*", "cam-", True),
        ("c?m-*", "cam-1", True),
        ("*-*", "cam-1", True),
        ("*a*", "cam-1", True),
        ("?*", "cam-1", True),
        ("cam-1", "cam-12", False),
        ("cam.1", "cam-1", False),
        ("am-*", "cam-1", False),
    ],
)
def test_patterns(pattern: str, name: str, meant: bool) -> None:
    assert matches(Match(id=pattern), device(name)) is meant


@pytest.mark.parametrize(
    ("prefix", "address", "meant"),
    [
        ("10.77.1.11/32", "10.77.1.11", True),
        ("10.77.1.12/32", "10.77.1.11", False),
        ("10.77.1.10/32", "10.77.1.11", False),
        ("::/8", "10.77.1.11", False),
        ("fd77:0:0:2::/64", "fd77:0:0:2::/64", True),
        ("fd77:0:0:2::/65", "fd77:0:0:2::/64", False),
        ("fd77:0:0:2:8000::/65", "fd77:0:0:2::/64", False),
        ("fd77:0:0:2::7/128", "fd77:0:0:2::7", True),
    ],
)
def test_prefixes(prefix: str, address: str, meant: bool) -> None:
    assert matches(Match(prefixes=(ip_network(prefix),)), device("cam-1", address)) is meant


# --- rulings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "standing", "deadline", "wanted"),
    [
        ({}, S.TRUSTED, END, (ADMITTED, END, "standing trusted: admitted until the deadline")),
        ({}, S.TRUSTED, None, (DENY, None, "standing trusted without a deadline: deny")),
        ({}, S.SUSPECT, END, (PROBATION, END, "standing suspect: at most probation until the deadline")),
        ({}, S.SUSPECT, None, (DENY, None, "standing suspect without a deadline: deny")),
        ({}, S.LAPSED, END, (DENY, None, "standing lapsed: deny")),
        (
            {"node_default": "quarantine"},
            S.TRUSTED,
            None,
            ("quarantine", None, "standing trusted without a deadline: quarantine"),
        ),
        (
            {"node_default": "quarantine"},
            S.TRUSTED,
            END,
            ("quarantine", None, "standing trusted: quarantine until the deadline"),
        ),
        (
            {"others": {S.HELD: "quarantine"}, "node_default": DENY},
            S.HELD,
            END,
            ("quarantine", None, "standing held: quarantine (node default)"),
        ),
        (
            {"classes": (DeviceClass("c", CAMERAS, Level({S.HELD: "quarantine"})),)},
            S.HELD,
            None,
            ("quarantine", None, "standing held: quarantine (class c)"),
        ),
        (
            {"deployments": (Deployment("d", CAMERAS, Level({S.SUSPECT: "tiny"})),)},
            S.SUSPECT,
            END,
            ("tiny", END, "standing suspect: at most tiny (deployment d) until the deadline"),
        ),
        (
            {"devices": {CAM: Level({S.SUSPECT: DENY})}},
            S.SUSPECT,
            END,
            (DENY, None, "standing suspect: at most deny (this device) until the deadline"),
        ),
    ],
)
def test_rulings_word_for_word(
    change: Mapping[str, object], standing: Standing, deadline: float | None, wanted: tuple[object, ...]
) -> None:
    assert last(standing, deadline, replace(BOOK, **change)) == wanted  # type: ignore[arg-type]


def test_what_was_made_ahead_is_of_one_very_device() -> None:
    by_kind = DeviceClass("c", CAMERAS, Level({S.TRUSTED: PROBATION}, quorum=1))
    ahead = compile_book(replace(BOOK, classes=(by_kind,)), [CAMERA])
    assert decide(CAMERA, S.TRUSTED, END, ahead).profile == PROBATION
    assert quorum_for(CAMERA, ahead) == 1
    moved = device("cam-1", kind="door")
    assert decide(moved, S.TRUSTED, END, ahead).profile == ADMITTED
    assert quorum_for(moved, ahead) is None


def test_a_shared_address_takes_the_lesser_of_two_that_reach_nothing() -> None:
    book = replace(BOOK, others={S.HELD: "quarantine"})
    decision = decide(CAMERA, S.TRUSTED, None, book, (OTHER, S.HELD))
    assert (decision.profile, decision.until, decision.standing) == (DENY, None, S.HELD)
    assert decision.chain[-1] == "address shared with cam-2 (held): judged as held, deny"


# --- overrides ----------------------------------------------------------------------------------------------------


HELD_TOO = {S.HELD: "quarantine"}


@pytest.mark.parametrize(
    ("by", "standing", "deadline", "profile", "until", "says"),
    [
        (PROBATION, S.TRUSTED, END, PROBATION, NOW + 10, "trusted: probation until the deadline"),
        (ADMITTED, S.TRUSTED, None, DENY, None, "trusted without a deadline: deny"),
        ("quarantine", S.TRUSTED, None, "quarantine", None, "trusted: quarantine"),
        ("quarantine", S.TRUSTED, END, "quarantine", None, "trusted: quarantine until the deadline"),
        ("lockdown", S.TRUSTED, END, DENY, None, "trusted: deny until the deadline"),
        ("tiny", S.HELD, END, "tiny", None, "held: quarantine (node default)"),
        ("tiny", S.SUSPECT, END, "tiny", NOW + 10, "suspect: at most probation until the deadline"),
        (ADMITTED, S.SUSPECT, END, PROBATION, NOW + 10, "suspect: at most probation until the deadline"),
    ],
)
def test_overrides_word_for_word(
    by: str, standing: Standing, deadline: float | None, profile: str, until: float | None, says: str
) -> None:
    word = Override(CAM, by, NOW + 10, "ann", "repair")
    decision = decide(CAMERA, standing, deadline, replace(BOOK, others=HELD_TOO), None, word, NOW)
    assert (decision.profile, decision.until, decision.chain[-1]) == (profile, until, f"standing {says}")


@pytest.mark.parametrize(
    ("until", "date"),
    [
        (0.0, "1970-01-01T00:00:00+00:00"),
        (0.5, "1970-01-01T00:00:00+00:00"),
        (-1.0, "-1"),
        (1e18, "1e+18"),
        (253_402_300_799.0, "9999-12-31T23:59:59+00:00"),
        (253_402_300_800.0, "2.53402e+11"),
    ],
)
def test_the_end_of_an_override_as_people_read_it(until: float, date: str) -> None:
    word = Override(CAM, ADMITTED, until, "ann", "repair")
    chain = decide(CAMERA, S.TRUSTED, END, BOOK, None, word, -5.0).chain
    assert f"operator override by ann until {date}: admitted (repair)" in chain


def test_tighter_at_its_edges() -> None:
    def made(profile: str, until: float | None) -> Decision:
        return Decision(CAM, S.TRUSTED, profile, until, ())

    assert not tighter(made("gone", None), made(DENY, None), BOOK)
    assert not tighter(made(ADMITTED, None), made(ADMITTED, END), BOOK)
    assert not tighter(made(ADMITTED, END), made(ADMITTED, None), BOOK)
    assert not tighter(made(ADMITTED, END), made(ADMITTED, END), BOOK)
    assert tighter(made(ADMITTED, END - 1), made(ADMITTED, END), BOOK)


# --- the site -----------------------------------------------------------------------------------------------------


def site(*when: Condition) -> Book:
    return Book(site=(SiteProfile("lockdown", when),))


@pytest.mark.parametrize(
    ("condition", "counts", "classes", "name"),
    [
        (Condition(S.HELD, ">=", 0, share=True), {}, {}, "normal"),
        (Condition(S.HELD, "<", 50, share=True), {}, {}, "normal"),
        (Condition(S.HELD, "==", 100, share=True), {"held": 1}, {}, "lockdown"),
        (Condition(S.HELD, "==", 50, share=True), {"held": 1, "trusted": 1}, {}, "lockdown"),
        (
            Condition(S.HELD, "==", 50, share=True, device_class="c"),
            {"held": 9},
            {"c": {"held": 1, "trusted": 1}},
            "lockdown",
        ),
        (Condition(S.HELD, ">=", 0, share=True, device_class="c"), {"held": 9}, {}, "normal"),
        (Condition(S.HELD, "==", 0), {}, {}, "lockdown"),
    ],
)
def test_shares_are_exact_and_of_somebody(
    condition: Condition, counts: Mapping[str, int], classes: Mapping[str, Mapping[str, int]], name: str
) -> None:
    assert decide_site(counts, sum(counts.values()), classes, site(condition)).name == name


def test_the_first_condition_that_fails_is_told() -> None:
    when = (Condition(S.HELD, ">", 1), Condition(S.TRUSTED, ">", 2), Condition(S.LAPSED, "==", 0))
    assert decide_site({}, 0, {}, site(*when)).chain == (
        "site lockdown: held > 1 does not hold (0)",
        "built-in: normal",
    )


# --- values at their edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [1, 65_535])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("path", ["routed", "relayed"])
def test_services_at_the_edges(port: int, protocol: str, path: str) -> None:
    made = Service("feed", FEED.address, port, protocol, path)  # type: ignore[arg-type]
    assert (made.port, made.protocol, made.path, made.profiles) == (port, protocol, path, (ADMITTED,))


def test_profiles_and_levels_at_the_edges() -> None:
    assert Profile("x" * 16, 1).rank == 1
    assert Profile("a", site=True).rank == 0
    assert Profile("a", 3, site=True).admits is False
    assert Level(max_age=0.001, recovery_passes=1, quorum=1) == Level({}, 0.001, 1, 1)
    assert Match(labels=(("a", "b"),)) == Match((("a", "b"),), "", ())
    for name in ("cut", "known", "always", "gated", "hosts", "corridor", "ip", "icmpv", "baseline"):
        with pytest.raises(ValueError, match="must be"):
            Profile(name, 1)
    for name in ("Deny", "1a", "a-b", "", "x" * 17, "a\n"):
        with pytest.raises(ValueError, match="must be"):
            Profile(name, 1)


def test_a_book_that_says_nothing() -> None:
    nothing = Book()
    assert (nothing.node_default, nothing.suspect, nothing.services, nothing.corridor) == (DENY, DENY, (), ())
    assert (nothing.always_allowed, nothing.deployments, nothing.classes, nothing.site) == ((), (), (), ())
    assert nothing.thresholds == (None, None, None, None)
    assert nothing == compile_book(nothing, [CAMERA])
    assert "compiled" not in repr(nothing)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Condition(S.HELD, ">=", 3), "held >= 3"),
        (Condition(S.TRUSTED, "<", 12.5, share=True), "trusted < 12.5%"),
        (Condition(S.LAPSED, "==", 0, device_class="cams"), "lapsed of class cams == 0"),
    ],
)
def test_conditions_as_people_read_them(condition: Condition, text: str) -> None:
    assert str(condition) == text


def test_a_profile_carries_the_names_of_its_documents() -> None:
    assert Profile("quarantine", rank=1, documents=("a.yaml", "b.yaml")).documents == ("a.yaml", "b.yaml")
    assert Profile("quarantine", rank=1).documents == ()


def test_a_profile_carries_the_parameters_of_its_documents() -> None:
    assert Profile("quarantine", rank=1, parameters={"path": "/tmp"}).parameters == {"path": "/tmp"}
    assert Profile("quarantine", rank=1).parameters == {}


def test_a_book_carries_the_kinds_of_documents_of_each_target() -> None:
    assert KINDS == ("path_gate", "network", "host", "container", "cluster")
    assert Book(targets={"edge": KINDS}).targets == {"edge": KINDS}
    assert Book().targets == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Level(recovery_passes=0), "recovery_passes 0 must be 1 or more"),
        (lambda: Level(quorum=0), "quorum 0 must be 1 or more"),
        (
            lambda: Book((replace(FEED, profiles=(ADMITTED, "vpi")),)),
            "service feed: profile 'vpi' must be one of deny, probation, admitted",
        ),
        (
            lambda: Book(devices={CAMERA.id: "lockdown"}, profiles={"lockdown": Profile("lockdown", site=True)}),
            "devices: profile 'lockdown' must be one of deny, probation, admitted",
        ),
    ],
)
def test_what_is_wrong_with_a_book_is_said_with_its_place_and_the_mend(
    wrong: Callable[[], object], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        wrong()
