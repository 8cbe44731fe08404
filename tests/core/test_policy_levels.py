"""Levels: specificity, conflicts, overrides, and explanations that name exactly the rules used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import DENY, Address, Binding, Decision, Device, DeviceId, SourceName, Standing
from gateway.core.policy import (
    ADMITTED,
    BUILT_IN,
    PROBATION,
    Book,
    Deployment,
    DeviceClass,
    Level,
    Match,
    Override,
    Profile,
    Service,
    check,
    check_against,
    compile_book,
    compiling,
    decide,
    matches,
    tighter,
)

S = Standing
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")
END = 1_795_284_300.0
QUARANTINE = Profile("quarantine", 10, ())
MAINTENANCE = Profile("maintenance", 70)
PROFILES: Mapping[str, Profile] = {**BUILT_IN, "quarantine": QUARANTINE, "maintenance": MAINTENANCE}
NAMES = tuple(PROFILES)
REACHING_NOTHING = ("deny", "quarantine")
RANK = {"deny": 0, "quarantine": 10, "probation": 50, "maintenance": 70, "admitted": 100}
FEED = Service("feed", ip_address("10.77.3.2"), 8001)


def device(name: str = "cam-1", address: str = "10.77.1.11", **labels: str) -> Device:
    bound = Binding(DeviceId(name), (Address.parse(address),))
    return Device(DeviceId(name), SourceName("verifier"), bound, tuple(labels.items()))


def trusted(profile: str, **others: str) -> Level:
    named = {Standing[name.upper()]: other for name, other in others.items()}
    return Level({S.TRUSTED: profile, **named})


# --- matching -----------------------------------------------------------------------------------------------------

CAMERA = device("cam-1", "10.77.1.11", kind="camera", site="north")


@pytest.mark.parametrize(
    ("match", "meant"),
    [
        (Match(labels=(("kind", "camera"),)), True),
        (Match(labels=(("kind", "camera"), ("site", "north"))), True),
        (Match(labels=(("kind", "camera"), ("site", "south"))), False),
        (Match(labels=(("kind", "cam"),)), False),
        (Match(id="cam-1"), True),
        (Match(id="cam-*"), True),
        (Match(id="*"), True),
        (Match(id="c?m-?"), True),
        (Match(id="*-1"), True),
        (Match(id="cam-?1"), False),
        (Match(id="cam"), False),
        (Match(id="cam.1"), False),
        (Match(prefixes=(ip_network("10.77.1.0/24"),)), True),
        (Match(prefixes=(ip_network("fd77::/16"), ip_network("10.77.1.11/32"))), True),
        (Match(prefixes=(ip_network("10.77.2.0/24"),)), False),
        (Match(prefixes=(ip_network("::/0"),)), False),
        (Match((("kind", "camera"),), "cam-*", (ip_network("10.77.1.0/24"),)), True),
        (Match((("kind", "camera"),), "cam-*", (ip_network("10.77.2.0/24"),)), False),
        (Match((("kind", "camera"),), "door-*", (ip_network("10.77.1.0/24"),)), False),
    ],
)
def test_all_that_a_match_gives_must_hold(match: Match, meant: bool) -> None:
    assert matches(match, CAMERA) is meant
    book = Book(classes=(DeviceClass("c", match, trusted(ADMITTED)),))
    for each in (book, compile_book(book, [CAMERA])):
        assert (decide(CAMERA, S.TRUSTED, END, each).profile == ADMITTED) is meant


def test_a_prefix_matches_a_64_only_as_a_whole() -> None:
    whole = device("cam-1", "fd77:0:0:1::/64")
    assert matches(Match(prefixes=(ip_network("fd77::/48"),)), whole)
    assert matches(Match(prefixes=(ip_network("fd77:0:0:1::/64"),)), whole)
    assert not matches(Match(prefixes=(ip_network("fd77:0:0:1::/65"),)), whole)


# --- specificity, by example --------------------------------------------------------------------------------------

CAMERAS = DeviceClass("cameras", Match((("kind", "camera"),)), trusted("maintenance"))
NORTH = DeviceClass("north", Match((("site", "north"),)), trusted(PROBATION, suspect="quarantine"))
CCTV = Deployment("cctv", Match((("kind", "camera"),)), trusted(PROBATION))
BOOK = Book((FEED,), node_default=ADMITTED, suspect=PROBATION, profiles=PROFILES)


@pytest.mark.parametrize(
    ("change", "standing", "profile"),
    [
        ({}, S.TRUSTED, ADMITTED),
        ({"deployments": (CCTV,)}, S.TRUSTED, PROBATION),
        ({"deployments": (CCTV,), "classes": (CAMERAS,)}, S.TRUSTED, "maintenance"),
        ({"classes": (CAMERAS, NORTH)}, S.TRUSTED, PROBATION),
        ({"classes": (CAMERAS, NORTH)}, S.SUSPECT, "quarantine"),
        ({"classes": (CAMERAS,)}, S.SUSPECT, PROBATION),
        ({"classes": (CAMERAS, NORTH), "devices": {CAM: ADMITTED}}, S.TRUSTED, ADMITTED),
        ({"classes": (CAMERAS, NORTH), "devices": {CAM: ADMITTED}}, S.SUSPECT, "quarantine"),
        ({"classes": (CAMERAS,), "devices": {CAM: trusted("quarantine")}}, S.SUSPECT, "quarantine"),
        ({"devices": {CAM: Level(max_age=60.0)}}, S.TRUSTED, ADMITTED),
        ({"others": {S.DISTRUSTED: "quarantine"}}, S.DISTRUSTED, "quarantine"),
        ({"others": {S.DISTRUSTED: "quarantine"}}, S.LAPSED, DENY),
        ({"classes": (replace(CAMERAS, level=trusted(ADMITTED, lapsed="quarantine")),)}, S.LAPSED, "quarantine"),
    ],
)
def test_more_specific_wins_and_at_equal_specificity_the_more_restrictive(
    change: Mapping[str, object], standing: Standing, profile: str
) -> None:
    book = replace(BOOK, **change)  # type: ignore[arg-type]
    decision = decide(CAMERA, standing, END, book)
    assert decision.profile == profile
    assert decision.until == (None if profile in REACHING_NOTHING else END)


def test_the_chain_names_each_level_that_matched_or_did_not() -> None:
    book = replace(BOOK, deployments=(CCTV,), classes=(CAMERAS, NORTH), devices={CAM: Level(max_age=60.0)})
    assert decide(CAMERA, S.SUSPECT, END, book).chain == (
        "built-in: deny",
        "node default: admitted",
        "deployment cctv: probation",
        "class cameras: maintenance",
        "class north: trusted probation, suspect quarantine",
        "class: the more restrictive of 2 wins",
        "this device: no profile",
        "standing suspect: at most quarantine (class cameras and north) until the deadline",
    )
    assert decide(device("door-1"), S.TRUSTED, END, book).chain == (
        "built-in: deny",
        "node default: admitted",
        "deployment: none matches",
        "class: none matches",
        "standing trusted: admitted until the deadline",
    )


# --- properties ---------------------------------------------------------------------------------------------------

LABELS = st.sampled_from(
    [(), (("a", "x"),), (("a", "y"),), (("b", "x"),), (("a", "x"), ("b", "x")), (("a", "y"), ("b", "x"))]
)
PREFIXES = st.sampled_from([(ip_network("10.77.1.0/24"),), (ip_network("10.77.2.0/24"),)])
fitting = st.fixed_dictionaries(
    {},
    optional={
        S.TRUSTED: st.sampled_from(NAMES),
        S.SUSPECT: st.sampled_from([name for name in NAMES if name != ADMITTED]),
        S.LAPSED: st.sampled_from(REACHING_NOTHING),
        S.DISTRUSTED: st.sampled_from(REACHING_NOTHING),
    },
)
levels = st.builds(Level, fitting)
some_matches = st.one_of(
    st.builds(Match, labels=LABELS.filter(bool)),
    st.builds(Match, id=st.sampled_from(["cam-*", "*", "cam-?", "door-*", "cam-1"])),
    st.builds(
        Match,
        labels=LABELS,
        prefixes=st.sampled_from(["10.77.1.0/24", "10.77.2.0/24"]).map(lambda n: (ip_network(n),)),
    ),
)


def _named(kind: type[DeviceClass | Deployment], letter: str) -> st.SearchStrategy[tuple[object, ...]]:
    rules = st.lists(st.tuples(some_matches, levels), max_size=3)
    return rules.map(lambda found: tuple(kind(f"{letter}{n}", *each) for n, each in enumerate(found)))


books = st.builds(
    Book,
    node_default=st.sampled_from(NAMES),
    suspect=st.sampled_from([name for name in NAMES if name != ADMITTED]),
    others=fitting.map(lambda found: {k: v for k, v in found.items() if k not in (S.TRUSTED, S.SUSPECT)}),
    devices=st.dictionaries(st.sampled_from([CAM, OTHER]), st.sampled_from(NAMES) | levels),
    deployments=_named(Deployment, "d"),
    classes=_named(DeviceClass, "c"),
    profiles=st.just(PROFILES),
)
some_devices = st.builds(
    lambda name, address, labels: device(name, address, **dict(labels)),
    st.sampled_from(["cam-1", "cam-2", "door-1"]),
    st.sampled_from(["10.77.1.11", "10.77.2.11", "fd77::11"]),
    LABELS,
)
standings = st.sampled_from(Standing)
deadlines = st.sampled_from([None, END])
conflicts = st.none() | st.tuples(st.just(DeviceId("other")), standings)
overrides = st.none() | st.tuples(st.sampled_from([*NAMES, "gone"]), st.sampled_from([END - 50, END + 50]))
NOW = END - 20.0


def decided(
    who: Device,
    standing: Standing,
    deadline: float | None,
    book: Book,
    conflict: tuple[DeviceId, Standing] | None = None,
    override: tuple[str, float] | None = None,
) -> Decision:
    word = None if override is None else Override(who.id, *override, "ann", "repair")
    return decide(who, standing, deadline, book, conflict, word, None if word is None else NOW)


def access(decision: Decision) -> int:
    return 0 if decision.until is None else RANK[decision.profile]


def expected(who: Device, standing: Standing, book: Book) -> str:
    """The words of the design, level by level, most specific first."""
    own = book.devices.get(who.id)
    rows: list[list[Level]] = [
        [Level({S.TRUSTED: own}) if isinstance(own, str) else own] if own is not None else [],
        [rule.level for rule in book.classes if matches(rule.match, who)],
        [rule.level for rule in book.deployments if matches(rule.match, who)],
        [Level({S.TRUSTED: book.node_default, S.SUSPECT: book.suspect, **book.others})],
    ]
    for row in rows:
        said = [level.standings[standing] for level in row if standing in level.standings]
        if said:
            return min(said, key=lambda name: RANK[name])
    return DENY


@settings(deadline=None)
@given(books, some_devices, standings, deadlines)
def test_decide_follows_specificity(book: Book, who: Device, standing: Standing, deadline: float | None) -> None:
    profile = expected(who, standing, book)
    if standing is S.SUSPECT:
        profile = min(profile, expected(who, S.TRUSTED, book), key=lambda name: RANK[name])
    admits = profile not in REACHING_NOTHING
    if deadline is None and admits:
        profile, admits = DENY, False
    decision = decided(who, standing, deadline, book)
    assert (decision.profile, decision.until) == (profile, deadline if admits else None)


@settings(deadline=None)
@given(books, some_devices, standings, deadlines, conflicts, overrides)
def test_decide_is_total_and_the_same_made_ahead(
    book: Book,
    who: Device,
    standing: Standing,
    deadline: float | None,
    conflict: tuple[DeviceId, Standing] | None,
    override: tuple[str, float] | None,
) -> None:
    decision = decided(who, standing, deadline, book, conflict, override)
    assert decision == decided(who, standing, deadline, book, conflict, override)
    ahead = compile_book(book, [who])
    assert who.id in ahead.compiled
    assert decision == decided(who, standing, deadline, ahead, conflict, override)
    assert decision == decided(replace(who), standing, deadline, ahead, conflict, override)
    assert decision.profile in PROFILES
    assert decision.until is None or (deadline is not None and decision.until <= deadline)
    assert (decision.until is not None) <= (decision.profile not in REACHING_NOTHING)
    if standing not in (S.TRUSTED, S.SUSPECT) or deadline is None:
        assert decision.until is None


@settings(deadline=None)
@given(books, some_devices, deadlines, conflicts, overrides)
def test_a_lower_standing_never_reaches_more(
    book: Book,
    who: Device,
    deadline: float | None,
    conflict: tuple[DeviceId, Standing] | None,
    override: tuple[str, float] | None,
) -> None:
    by = {each: access(decided(who, each, deadline, book, conflict, override)) for each in Standing}
    rest = max(by[each] for each in Standing if each not in (S.TRUSTED, S.SUSPECT))
    assert by[S.TRUSTED] >= by[S.SUSPECT] >= rest == 0
    for each in Standing:
        assert by[each] <= access(decided(who, each, deadline, book, None, override))


def without(book: Book, name: str) -> Book:
    if name == "own":
        return replace(book, devices={key: own for key, own in book.devices.items() if key != CAM})
    if name.startswith("device "):
        return replace(
            book, devices={k: own for k, own in book.devices.items() if k != name.removeprefix("device ")}
        )
    return replace(
        book,
        deployments=tuple(rule for rule in book.deployments if rule.name != name),
        classes=tuple(rule for rule in book.classes if rule.name != name),
    )


def rules_in(decision: Decision) -> tuple[str, ...]:
    """The chain without the lines that say of a level that nothing in it matched."""
    return tuple(line for line in decision.chain if not line.endswith(": none matches"))


@settings(max_examples=150, deadline=None)
@given(books, some_devices, standings, deadlines)
def test_the_chain_names_exactly_the_rules_used(
    book: Book, who: Device, standing: Standing, deadline: float | None
) -> None:
    decision = decided(who, standing, deadline, book)
    heads = {line.partition(":")[0] for line in decision.chain}
    candidates = [(rule.name, f"class {rule.name}") for rule in book.classes]
    candidates += [(rule.name, f"deployment {rule.name}") for rule in book.deployments]
    candidates += [(f"device {name}", "this device" if name == who.id else "") for name in book.devices]
    for name, head in candidates:
        other = decided(who, standing, deadline, without(book, name))
        if head in heads:
            assert other.chain != decision.chain
        else:
            assert (other.profile, other.until, rules_in(other)) == (
                decision.profile,
                decision.until,
                rules_in(decision),
            )
    assert f"node default: {book.node_default}" in decision.chain


# --- overrides ----------------------------------------------------------------------------------------------------

PLAIN = Book((FEED,), node_default=PROBATION, suspect=PROBATION, profiles=PROFILES)
WORD = Override(CAM, ADMITTED, NOW + 10, "ann", "repair")


def test_an_override_is_the_most_specific_level_and_ends() -> None:
    decision = decide(CAMERA, S.TRUSTED, END, PLAIN, None, WORD, NOW)
    assert (decision.profile, decision.until) == (ADMITTED, NOW + 10)
    assert decision.chain[-2:] == (
        "operator override by ann until 2026-11-21T18:04:50+00:00: admitted (repair)",
        "standing trusted: admitted until the deadline",
    )
    ended = decide(CAMERA, S.TRUSTED, END, PLAIN, None, WORD, WORD.until)
    assert ended == decide(CAMERA, S.TRUSTED, END, PLAIN)
    later = decide(CAMERA, S.TRUSTED, NOW + 5, PLAIN, None, WORD, NOW)
    assert later.until == NOW + 5


@pytest.mark.parametrize("until", [float("inf"), 1e18, float("nan"), -1.0])
def test_an_override_with_an_end_beyond_the_calendar(until: float) -> None:
    decision = decide(CAMERA, S.TRUSTED, END, PLAIN, None, WORD._replace(until=until), NOW)
    assert (decision.profile, decision.until) == ((ADMITTED, END) if until > NOW else (PROBATION, END))


@pytest.mark.parametrize("standing", [each for each in Standing if each is not S.TRUSTED])
def test_an_override_gives_nobody_trust(standing: Standing) -> None:
    word = decide(CAMERA, standing, END, PLAIN, None, WORD, NOW)
    assert access(word) == access(decide(CAMERA, standing, END, PLAIN))
    assert access(decide(CAMERA, S.TRUSTED, None, PLAIN, None, WORD, NOW)) == 0


@pytest.mark.parametrize("profile", ["deny", "quarantine", "gone"])
def test_an_override_lowers_every_standing(profile: str) -> None:
    word = WORD._replace(profile=profile)
    for standing in Standing:
        assert decide(CAMERA, standing, END, PLAIN, None, word, NOW).until is None


def test_an_override_needs_the_time_and_its_own_device() -> None:
    with pytest.raises(ValueError, match="needs the time"):
        decide(CAMERA, S.TRUSTED, END, PLAIN, None, WORD)
    with pytest.raises(ValueError, match="its own device, not door-1"):
        decide(device("door-1"), S.TRUSTED, END, PLAIN, None, WORD, NOW)


def test_tighter_ranks_by_the_book() -> None:
    def made(profile: str) -> Decision:
        return Decision(CAM, S.TRUSTED, profile, END, ())

    assert tighter(made(PROBATION), made("maintenance"), PLAIN)
    assert not tighter(made("maintenance"), made(PROBATION), PLAIN)
    assert tighter(made(ADMITTED), made("gone"), PLAIN)
    assert tighter(made("gone"), made(ADMITTED), PLAIN)
    assert PLAIN.rank("gone") == 0


# --- made ahead ---------------------------------------------------------------------------------------------------


def test_making_ahead_pauses_and_shares() -> None:
    many = [device(f"cam-{n}", kind="camera", n=str(n % 7)) for n in range(1_000)]
    book = replace(BOOK, classes=(CAMERAS, NORTH))
    work = compiling(book, many)
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            made = end.value
            break
        pauses += 1
    assert pauses == 10
    assert made == book
    assert len({id(ruled) for _, ruled in made.compiled.values()}) == 1


# --- checks -------------------------------------------------------------------------------------------------------


def found(book: Book, *devices: Device) -> list[tuple[str, str]]:
    findings = check_against(book, devices) if devices else check(book)
    assert all(finding.what and finding.mend for finding in findings)
    return [(finding.severity, finding.subject) for finding in findings]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, []),
        ({"profiles": {**PROFILES, "other": Profile("other", 70)}}, [("error", "profile other")]),
        ({"profiles": {"x": Profile("x", 70, ("food",))}}, [("error", "profile x")]),
        ({"profiles": {"x": Profile("x", 200, ())}}, [("error", "service feed")]),
        ({"profiles": {"x": Profile("x", 20, "all")}}, [("error", "service feed")]),
        ({"profiles": {"x": Profile("x", 200, "all")}}, []),
        ({"classes": (replace(CAMERAS, level=trusted(DENY, suspect=PROBATION)),)}, [("error", "class cameras")]),
        ({"classes": (replace(CAMERAS, level=Level()),)}, [("warning", "class cameras")]),
        ({"classes": (CAMERAS, CAMERAS)}, [("error", "class cameras")]),
        ({"deployments": (CCTV, CCTV)}, [("error", "deployment cctv")]),
        ({"deployments": (replace(CCTV, services=("feed",)),)}, [("error", "deployment cctv")]),
        ({"deployments": (replace(CCTV, services=("food",)),)}, [("error", "deployment cctv")]),
        ({"deployments": (replace(CCTV, level=Level(), services=("feed",)),)}, []),
        ({"deployments": (replace(CCTV, level=trusted(ADMITTED), services=("feed",)),)}, []),
        ({"devices": {CAM: trusted(DENY, suspect=PROBATION)}}, [("error", "device cam-1")]),
        ({"node_default": DENY}, [("warning", "node_default")]),
        ({"node_default": DENY, "classes": (replace(CAMERAS, level=trusted(ADMITTED)),)}, []),
    ],
)
def test_a_book_is_checked_by_itself(change: Mapping[str, object], wanted: list[tuple[str, str]]) -> None:
    assert found(replace(BOOK, **change)) == wanted  # type: ignore[arg-type]


def test_a_deployment_that_reaches_more_than_it_says_is_told() -> None:
    status = Service("status", ip_address("10.77.3.2"), 8051)
    narrow = replace(CCTV, level=trusted(ADMITTED), services=("feed",))
    (finding,) = check(replace(BOOK, services=(FEED, status), deployments=(narrow,)))
    assert finding.what == "its devices get admitted when trusted, which reaches status as well"


def test_rules_of_equal_specificity_that_disagree_are_told_once() -> None:
    book = replace(BOOK, classes=(CAMERAS, NORTH))
    again = device("cam-2", "10.77.1.12", kind="camera", site="north")
    findings = check_against(book, [CAMERA, again])
    assert [(each.severity, each.subject) for each in findings] == [("warning", "class north")]
    assert findings[0].what == (
        "2 devices (cam-1 first) match cameras (trusted maintenance) and north (trusted probation): "
        "the more restrictive wins"
    )
    same = replace(NORTH, level=trusted("maintenance"))
    assert found(replace(BOOK, classes=(CAMERAS, same)), CAMERA) == []


def test_a_rule_for_nobody_and_a_quorum_that_cannot_be_are_told() -> None:
    book = replace(BOOK, classes=(CAMERAS, NORTH), deployments=(CCTV,))
    assert found(book, device("door-1")) == [
        ("warning", "deployment cctv"),
        ("warning", "class cameras"),
        ("warning", "class north"),
    ]
    two = replace(CAMERAS, level=Level({S.TRUSTED: ADMITTED}, quorum=2))
    book = replace(BOOK, classes=(two,), devices={CAM: Level(quorum=3)})
    assert found(book, CAMERA) == [("error", "class cameras"), ("error", "devices cam-1")]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Match(),
        lambda: Level(max_age=0.0),
        lambda: Level(max_age=float("nan")),
        lambda: Level(recovery_passes=0),
        lambda: Level(quorum=0),
        lambda: Profile("Upper", 1),
        lambda: Profile("cut", 1),
        lambda: Profile("x" * 17, 1),
        lambda: Profile("x", 0),
        lambda: Profile("x", -1),
        lambda: Profile("deny", 1),
        lambda: Book(classes=(replace(CAMERAS, level=trusted("gone")),)),
        lambda: Book(classes=(replace(CAMERAS, level=trusted(ADMITTED, suspect=ADMITTED)),)),
        lambda: Book(deployments=(replace(CCTV, level=trusted(ADMITTED, lapsed=PROBATION)),)),
        lambda: Book(devices={CAM: trusted(ADMITTED, distrusted=ADMITTED)}),
        lambda: Book(others={S.HELD: PROBATION}),
        lambda: Book(node_default="lockdown", profiles={"lockdown": Profile("lockdown", site=True)}),
    ],
)
def test_values_that_are_none_cannot_be_made(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"must be"):
        wrong()
