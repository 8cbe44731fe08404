"""The rehearsal: books compared, a journal replayed, one supposed event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import lifecycle
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    Address,
    AnchorKind,
    Binding,
    Device,
    DeviceId,
    Event,
    EventKind,
    Record,
    SourceName,
    Standing,
)
from gateway.core.policy import Book, Level, Override, Service, compile_book
from gateway.core.rehearsal import (
    IMAGINABLE,
    NOW,
    Differences,
    Documents,
    Journalled,
    Shift,
    Shifts,
    Span,
    State,
    compare,
    compare_documents,
    hypothetical,
    imagine,
    lowest_sharer,
    replay,
    starting,
)

SOURCE = SourceName("verifier")
RULES = Rules(max_age=100.0)
BEGIN, END = 1_000.0, 5_000.0
FEED = Service("feed", IPv4Address("10.77.3.2"), 8001)
TIME = Service("time", IPv4Address("10.77.3.2"), 8002, profiles=("probation", "admitted"))
BOOK = Book(services=(FEED, TIME), node_default="admitted", suspect="probation")
FEED_IS, TIME_IS = "feed 10.77.3.2:8001/tcp", "time 10.77.3.2:8002/tcp"


def device(name: str, *addresses: str) -> Device:
    bound = tuple(Address.parse(address) for address in addresses or ("10.0.0.1",))
    return Device(DeviceId(name), SOURCE, Binding(DeviceId(name), bound, AnchorKind.UPSTREAM))


CAM = device("cam-1")
PAIR = (device("cam-1", "10.0.0.1"), device("cam-2", "10.0.0.2"), device("cam-3", "10.0.0.3"))
SHARING = (device("cam-1", "10.0.0.1"), device("cam-2", "10.0.0.1"), device("cam-3", "10.0.0.3"))


def states(*found: Standing) -> dict[DeviceId, State]:
    admits = {Standing.TRUSTED, Standing.SUSPECT}
    return {d.id: State(s, 2_000.0 if s in admits else None) for d, s in zip(PAIR, found, strict=True)}


# --- two books ------------------------------------------------------------------------------------------------


def test_shift_names_what_is_gained_and_lost() -> None:
    other = Book(services=(FEED,), node_default="admitted")
    shifts = Shifts(BOOK, other)
    assert shifts.between("admitted", "deny") == Shift("admitted", "deny", (), (FEED_IS, TIME_IS))
    assert shifts.between("probation", "admitted") == Shift("probation", "admitted", (FEED_IS,), (TIME_IS,))
    assert shifts.between("deny", "deny") is None
    lost = shifts.between("admitted", "admitted")
    assert lost is not None
    assert (lost.lost, lost.direction) == ((TIME_IS,), "less")
    assert Shift("a", "b", ("x",)).direction == "more"
    assert Shift("a", "b", ("x",), ("y",)).direction == Shift("a", "b").direction == "other"


def test_compare_puts_each_device_in_one_group() -> None:
    new = Book(
        services=(FEED, TIME),
        node_default="admitted",
        suspect="deny",
        devices={DeviceId("cam-1"): "probation", DeviceId("cam-2"): "deny"},
    )
    now = states(Standing.TRUSTED, Standing.LAPSED, Standing.TRUSTED)
    found = compare(PAIR, now, BOOK, new)
    assert [(group.when, group.shift.after, group.devices) for group in found.groups] == [
        (NOW, "probation", ("cam-1",)),
        ("trusted", "deny", ("cam-2",)),
        ("suspect", "deny", ("cam-3",)),
    ]
    assert (found.count(), found.count(NOW), found.devices) == (3, 1, 3)
    assert compare(PAIR, now, compile_book(BOOK, PAIR), compile_book(new, PAIR)) == found


def test_compare_judges_shared_addresses_as_the_service_does() -> None:
    new = Book(services=(FEED, TIME), node_default="deny")
    now = states(Standing.TRUSTED, Standing.HELD, Standing.TRUSTED)
    found = compare(SHARING, now, BOOK, new)
    assert [(group.when, group.devices) for group in found.groups] == [
        (NOW, ("cam-3",)),
        ("trusted", ("cam-1", "cam-2")),
    ]


STANDINGS = st.sampled_from(Standing)
BOOKS = st.builds(
    Book,
    services=st.just((FEED, TIME)),
    node_default=st.sampled_from(("deny", "probation", "admitted")),
    suspect=st.sampled_from(("deny", "probation")),
    devices=st.dictionaries(
        st.sampled_from([each.id for each in PAIR]), st.sampled_from(("deny", "probation", "admitted"))
    ),
)


@given(BOOKS, BOOKS, st.tuples(STANDINGS, STANDINGS, STANDINGS), st.sampled_from((PAIR, SHARING)))
def test_property_compare(old: Book, new: Book, now: Sequence[Standing], devices: Sequence[Device]) -> None:
    for same in (old, compile_book(old, devices), Book(old.services, devices=old.devices)):
        assert compare(devices, states(*now), same, same).groups == ()
    there, back = compare(devices, states(*now), old, new), compare(devices, states(*now), new, old)
    assert there == compare(devices, states(*now), compile_book(old, devices), compile_book(new, devices))
    assert there.count() == back.count()
    for group in there.groups:
        shift = group.shift
        turned = Shift(shift.after, shift.before, shift.lost, shift.gained)
        assert (group.when, turned, group.devices) in back.groups


def test_documents() -> None:
    found = compare_documents({"a": "1", "b": "2", "c": "3"}, {"b": "2", "c": "4", "d": "5"})
    assert found == Documents(("d",), ("c",), ("a",))
    assert found.differ
    assert not compare_documents({"a": "1"}, {"a": "1"}).differ


def test_lowest_sharer() -> None:
    known = {"a": Standing.RETIRED, "b": Standing.SUSPECT, "c": Standing.HELD}
    assert lowest_sharer(Standing.TRUSTED, map(DeviceId, "abcd"), known.get) == ("c", Standing.HELD)
    assert lowest_sharer(Standing.HELD, map(DeviceId, "abcd"), known.get) is None


# --- a journal ------------------------------------------------------------------------------------------------


def journal(
    name: str,
    events: Iterable[Event],
    rules: Rules = RULES,
    record: Record | None = None,
    source: SourceName = SOURCE,
) -> list[Journalled]:
    """What the service would have written: every deadline that passes is stepped when it has."""
    rows: list[Journalled] = []
    record = record or Record()

    def take(event: Event) -> None:
        nonlocal record
        assert record is not None
        made = lifecycle.step(record, event, rules).record
        rows.append(Journalled(DeviceId(name), source, event, record, made))
        record = made

    for event in events:
        if record.deadline is not None and record.deadline + 0.003 <= event.at:
            take(Event(EventKind.LAPSED, record.deadline + 0.003))
        take(event)
    return rows


def passed(at: float) -> Event:
    return Event(EventKind.PASSED, at, int(at), None, str(at).encode())


def failed(at: float) -> Event:
    return Event(EventKind.FAILED, at, int(at), None, str(at).encode())


def replayed(rows: Iterable[Journalled], book: Book, rules: Rules, devices: Sequence[Device] = PAIR) -> Differences:
    return replay(rows, devices, {}, BOOK, book, lambda *_: rules, BEGIN, END)


def test_a_shorter_age_cuts_between_attestations() -> None:
    rows = journal("cam-1", [passed(1_100), passed(1_190), passed(1_250)])
    found = replayed(rows, BOOK, Rules(max_age=50.0))
    (cam,) = found.devices
    assert (cam.device, cam.less, cam.more, cam.spans) == ("cam-1", 40.0 + 10.0 + 50.0, 0.0, 3)
    assert cam.first == Span(1_150.0, 1_190.0, "admitted", "deny")
    assert cam.longest == Span(1_300.0, 1_350.0, "admitted", "deny")
    assert (found.events, found.standings, found.skipped, found.rejoined) == (3, 0, 0, 0)


def test_a_longer_age_admits_where_silence_had_cut() -> None:
    found = replayed(journal("cam-1", [passed(1_100), passed(1_400)]), BOOK, Rules(max_age=1_000.0))
    (cam,) = found.devices
    assert (cam.less, cam.more, cam.spans) == (0.0, 200.0 + 900.0, 2)
    assert found.standings == 1  # after the lapse that would not have been


def test_fewer_passes_recover_sooner() -> None:
    rows = journal("cam-1", [passed(1_100), failed(1_110), passed(1_120), passed(1_150)])
    (cam,) = replayed(rows, BOOK, Rules(max_age=100.0, recovery_passes=1)).devices
    assert cam.first == Span(1_120.0, 1_150.0, "deny", "admitted")
    assert (cam.more, cam.spans) == (30.0, 1)


def test_another_profile_and_services() -> None:
    new = Book(services=(FEED, TIME), node_default="probation", suspect="probation")
    rows = journal("cam-1", [passed(1_100), passed(1_150)])
    (cam,) = replayed(rows, new, RULES).devices
    assert (cam.less, cam.spans, cam.first) == (150.0, 1, Span(1_100.0, 1_250.0, "admitted", "probation"))


def test_devices_of_whom_the_journal_is_silent() -> None:
    trusted = {(CAM.id, SOURCE): Record(Standing.TRUSTED, 1_500.0)}
    found = replay((), PAIR, trusted, BOOK, Book(services=(FEED,)), lambda *_: RULES, BEGIN, END)
    (cam,) = found.devices
    assert (found.seen, cam.first) == (1, Span(BEGIN, 1_500.0, "admitted", "deny"))


def test_rows_that_concern_nobody_are_counted() -> None:
    (row,) = journal("cam-1", [passed(1_100)])
    strangers = [row._replace(device=DeviceId("gone")), row._replace(source=SourceName("other"))]
    assert replayed([*strangers, row, row._replace(source=SourceName("other"))], BOOK, RULES).skipped == 3


def test_a_restart_shortens_both_histories() -> None:
    first = journal("cam-1", [passed(1_100)])
    capped = Record(Standing.TRUSTED, 1_160.0, 1_100, first[0].after.nonces)
    rows = [*first, *journal("cam-1", [passed(1_300)], record=capped)]
    assert replayed(rows, BOOK, RULES).devices == ()
    found = replayed(rows, BOOK, Rules(max_age=150.0))
    # 1250 would have been the other deadline; the restart took 40 s of both, and the journal tells it late.
    assert found.devices[0].first == Span(1_160.003, 1_210.0, "deny", "admitted")
    assert found.rejoined == 1


def test_a_conflict_follows_the_sharer() -> None:
    rows = [
        *journal("cam-1", [passed(1_100)]),
        *journal("cam-2", [passed(1_110), failed(1_120)]),
    ]
    strict = replayed(rows, BOOK, Rules(max_age=50.0), SHARING)
    names = {each.device: each for each in strict.devices}
    assert "cam-3" not in names
    assert replayed(rows, BOOK, RULES, SHARING).devices == ()


# --- several sources ------------------------------------------------------------------------------------------

SECOND = SourceName("keylime")


def both(name: str = "cam-1") -> Device:
    return replace(device(name), also=(SECOND,))


def by_time(*histories: Iterable[Journalled]) -> list[Journalled]:
    return sorted((row for rows in histories for row in rows), key=lambda row: row.event.at)


def replayed_with(
    rows: list[Journalled], of: Device, ages: Mapping[SourceName, float], book: Book = BOOK
) -> Differences:
    def rules(_: Device, source: SourceName) -> Rules:
        return Rules(max_age=ages.get(source, 100.0))

    return replay(rows, (of,), {}, book, book, rules, BEGIN, END, starting(rows, (of,)))


def test_a_device_with_two_sources_is_admitted_only_while_both_admit_it() -> None:
    rows = by_time(
        journal("cam-1", [passed(1_100)]),
        journal("cam-1", [passed(1_150)], source=SECOND),
    )
    # Admitted from 1150, when the second spoke, to 1200, when the first lapsed: a shorter age of either cuts that.
    (cam,) = replayed_with(rows, both(), {SECOND: 20.0}).devices
    assert (cam.less, cam.more, cam.first) == (30.0, 0.0, Span(1_170.0, 1_200.0, "admitted", "deny"))
    (cam,) = replayed_with(rows, both(), {SOURCE: 60.0}).devices
    assert (cam.less, cam.more, cam.first) == (40.0, 0.0, Span(1_160.0, 1_200.0, "admitted", "deny"))
    # A longer age of the second opens nothing while the first has lapsed.
    assert replayed_with(rows, both(), {SECOND: 900.0}).devices == ()


def test_what_a_second_source_says_counts_in_both_histories() -> None:
    rows = by_time(
        journal("cam-1", [passed(1_100)]),
        journal("cam-1", [passed(1_101), failed(1_110)], source=SECOND),
    )
    found = replayed_with(rows, both(), {SOURCE: 50.0})
    assert (found.devices, found.events, found.skipped) == ((), 3, 0)


def test_a_quorum_is_kept_by_the_sources_that_are_left() -> None:
    rows = by_time(
        journal("cam-1", [passed(1_100)]),
        journal("cam-1", [passed(1_150)], source=SECOND),
    )
    (cam,) = replayed_with(rows, both(), {SECOND: 20.0}, replace(BOOK, devices={CAM.id: Level(quorum=1)})).devices
    assert cam.first == Span(1_200.0, 1_250.0, "admitted", "deny")


def test_a_source_that_had_spoken_before_the_time_counts_from_its_beginning() -> None:
    earlier = Record(Standing.TRUSTED, 1_180.0, 900, (b"n",))
    rows = by_time(
        journal("cam-1", [passed(1_100)]),
        journal("cam-1", [passed(1_170)], record=earlier, source=SECOND),
    )
    assert starting(rows, (both(),)) == {("cam-1", SOURCE): Record(), ("cam-1", SECOND): earlier}
    assert starting(rows, PAIR) == {}
    (cam,) = replayed_with(rows, both(), {SOURCE: 30.0}).devices
    assert cam.first == Span(1_130.0, 1_200.0, "admitted", "deny")


def test_a_source_that_said_nothing_in_the_time_has_the_record_it_has_now() -> None:
    of, rows = both(), journal("cam-1", [passed(1_100)])
    silent = {(of.id, SECOND): Record(Standing.TRUSTED, 1_160.0, 900, (b"n",))}

    def rules(_: Device, source: SourceName) -> Rules:
        return Rules(max_age=30.0)

    (cam,) = replay(rows, (of,), silent, BOOK, BOOK, rules, BEGIN, END, starting(rows, (of,))).devices
    assert cam.first == Span(1_130.0, 1_160.0, "admitted", "deny")


KINDS = st.sampled_from([kind for kind in EventKind if kind is not EventKind.LAPSED])
EVENTS = st.lists(
    st.builds(
        lambda kind, gap, age, nonce, flag: (kind, gap, age, bytes([nonce]), flag),
        KINDS | st.just(EventKind.PASSED),
        st.sampled_from((0.0, 0.5, 1.0, 7.0, 60.0, 101.0, 500.0)),
        st.integers(0, 3),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=25,
)


def histories(drawn: Sequence[Sequence[tuple[EventKind, float, int, bytes, bool]]]) -> list[Journalled]:
    rows: list[Journalled] = []
    for each, steps in zip(PAIR, drawn, strict=False):
        at, events = BEGIN, []
        for kind, gap, age, nonce, flag in steps:
            at += gap
            events.append(Event(kind, at, int(at) - age, None, nonce, "", "", flag, flag))
        rows += journal(each.id, events)
    return sorted(rows, key=lambda row: row.event.at)


@settings(max_examples=100)
@given(st.lists(EVENTS, min_size=1, max_size=3), st.sampled_from((PAIR, SHARING)))
def test_property_the_same_book_and_rules_change_nothing(
    drawn: list[list[tuple[EventKind, float, int, bytes, bool]]], devices: Sequence[Device]
) -> None:
    rows = histories(drawn)
    found = replay(rows, devices, {}, BOOK, BOOK, lambda *_: RULES, BEGIN, 50_000.0)
    assert (found.devices, found.standings, found.rejoined, found.events) == ((), 0, 0, len(rows))


@settings(max_examples=100)
@given(EVENTS, BOOKS, st.sampled_from((10.0, 100.0, 1_000.0)))
def test_property_seconds_are_those_of_the_spans(
    steps: list[tuple[EventKind, float, int, bytes, bool]], book: Book, max_age: float
) -> None:
    rows = histories([steps])
    for each in replay(rows, PAIR, {}, BOOK, book, lambda *_: Rules(max_age=max_age), BEGIN, 50_000.0).devices:
        total = each.less + each.more + each.other
        longest = each.longest.end - each.longest.start
        assert each.spans >= 1
        assert BEGIN <= each.first.start <= each.longest.start
        assert longest - 1e-6 <= total <= longest * each.spans + 1e-6


# --- one event ------------------------------------------------------------------------------------------------


def test_imagined_events_are_fresh_and_new() -> None:
    record = Record(Standing.TRUSTED, 1_500.0, 1_200, (bytes(16),))
    event = imagine("passed", 1_200.5, {SOURCE: record})
    assert (event.kind, event.issued_at, len(event.nonce)) == (EventKind.PASSED, 1_200, 16)
    assert event.nonce not in record.nonces
    assert imagine("rejected", 1.0, {}).kind is EventKind.FAILED
    assert imagine("lapsed", 1_200.0, {SOURCE: record}).at == 1_500.0
    assert imagine("lapsed", 1_600.0, {SOURCE: record}).at == 1_600.0
    with pytest.raises(ValueError, match="must be one of passed, failed"):
        imagine("exploded", 1.0, {})


@pytest.mark.parametrize("word", IMAGINABLE)
@pytest.mark.parametrize("standing", Standing)
def test_every_event_at_every_standing_has_an_answer(word: str, standing: Standing) -> None:
    admits = standing in (Standing.TRUSTED, Standing.SUSPECT)
    records = {SOURCE: Record(standing, 1_500.0 if admits else None, hold=standing is Standing.HELD)}
    event = imagine(word, 1_200.0, records)
    found = hypothetical(CAM, records, event, BOOK, {SOURCE: RULES})
    made = lifecycle.step(records[SOURCE], event, RULES)
    assert found.records == {SOURCE: made.record}
    assert [each.why for each in found.transitions] == [made.why]
    assert found.after.standing is lifecycle.fold((made.record,))[0]
    assert found.after.chain[-1].startswith(f"standing {found.after.standing.label}")
    assert (found.shift is None) == (found.before.profile == found.after.profile)


def test_a_sharer_keeps_it_low() -> None:
    found = hypothetical(
        CAM,
        {SOURCE: Record()},
        imagine("passed", 1_200.0, {}),
        BOOK,
        {SOURCE: RULES},
        (DeviceId("cam-2"), Standing.HELD),
    )
    assert found.records[SOURCE].standing is Standing.TRUSTED
    assert (found.after.standing, found.after.profile, found.shift) == (Standing.HELD, "deny", None)


# --- overrides --------------------------------------------------------------------------------------------------

WORD = Override(DeviceId("cam-1"), "probation", 1_300.0, "ann", "repair")


def test_an_override_that_runs_hides_what_the_book_changes_now_and_not_what_comes() -> None:
    new = Book(services=(FEED, TIME), node_default="probation", suspect="deny")
    now = states(Standing.TRUSTED, Standing.TRUSTED, Standing.LAPSED)
    found = compare(PAIR, now, BOOK, new, overrides={WORD.device: WORD}, now=1_200.0)
    assert [(group.when, group.devices) for group in found.groups] == [
        (NOW, ("cam-2",)),
        ("trusted", ("cam-1", "cam-3")),
    ]
    over = compare(PAIR, now, BOOK, new, overrides={WORD.device: WORD}, now=WORD.until)
    assert [(group.when, group.devices) for group in over.groups] == [
        (NOW, ("cam-1", "cam-2")),
        ("trusted", ("cam-3",)),
    ]
    made = compare(
        PAIR, now, compile_book(BOOK, PAIR), compile_book(new, PAIR), overrides={WORD.device: WORD}, now=1_200.0
    )
    assert made == found


@pytest.mark.parametrize(
    ("at", "profile", "until"), [(1_200.0, "probation", 1_300.0), (1_301.0, "admitted", 2_101.0)]
)
def test_an_event_is_supposed_under_the_override_that_runs_by_then(at: float, profile: str, until: float) -> None:
    event = imagine("passed", at, {})
    found = hypothetical(CAM, {SOURCE: Record()}, event, BOOK, {SOURCE: Rules(max_age=800.0)}, None, WORD, 1_200.0)
    assert (found.after.profile, found.after.until) == (profile, until)
    assert any("operator override by ann" in line for line in found.after.chain) is (at < WORD.until)
