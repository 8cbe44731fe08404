"""Every finding of a book word for word, and the books next to them that have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from gateway.core.model import DENY, Address, Binding, Device, DeviceId, SourceName, Standing
from gateway.core.policy import (
    ADMITTED,
    BUILT_IN,
    PROBATION,
    Book,
    Condition,
    CorridorEntry,
    Deployment,
    DeviceClass,
    Level,
    Link,
    Links,
    Match,
    Profile,
    Service,
    SiteProfile,
    check,
    check_against,
    check_lockout,
)

S = Standing
FEED = Service("feed", ip_address("10.77.3.2"), 8001)
TIME = Service("time", ip_address("10.77.3.2"), 8002, profiles=(PROBATION, ADMITTED))
VERIFIER = CorridorEntry("verifier", ip_address("10.77.2.2"), 8100)
EXTRA: Mapping[str, Profile] = {"maintenance": Profile("maintenance", 70)}
BOOK = Book((FEED, TIME), (VERIFIER,), (ip_network("10.77.9.0/24"),), ADMITTED, PROBATION, profiles=EXTRA)
ALL = Match(id="*")
LOCKDOWN = Profile("lockdown", site=True)
CAM = DeviceId("cam-1")


def given(trusted: str | None = None, suspect: str | None = None) -> Level:
    both = {S.TRUSTED: trusted, S.SUSPECT: suspect}
    return Level({standing: profile for standing, profile in both.items() if profile is not None})


BY_ITSELF: list[tuple[Mapping[str, object], list[tuple[str, ...]]]] = [
    (
        {"services": (FEED, replace(FEED, port=1))},
        [("error", "service feed", "the name is listed twice", "give each a name of its own")],
    ),
    (
        {"services": (FEED, replace(FEED, name="again"))},
        [
            (
                "error",
                "service again",
                "10.77.3.2 port 8001/tcp is listed already as feed",
                "keep one of the two",
            )
        ],
    ),
    (
        {"profiles": {"other": Profile("other", 100)}},
        [
            (
                "error",
                "profile other",
                "its rank 100 is that of admitted too: neither would be the more restrictive",
                "give each profile a rank of its own",
            ),
            (
                "error",
                "service feed",
                "admitted reaches it and other does not: a lower profile would reach more",
                "list other too",
            ),
            (
                "error",
                "service time",
                "probation reaches it and other does not: a lower profile would reach more",
                "list other too",
            ),
        ],
    ),
    ({"services": (FEED,), "profiles": {"x": Profile("x", 70, ("feed",))}}, []),
    (
        {"services": (FEED,), "profiles": {"x": Profile("x", 70, ("food",))}},
        [
            (
                "error",
                "profile x",
                "it reaches food, and the book has no such service",
                "name one of the book's services",
            )
        ],
    ),
    (
        {"services": (replace(FEED, profiles=(PROBATION,)),), "profiles": {"x": Profile("x", 70, ())}},
        [
            (
                "error",
                "service feed",
                "probation reaches it and x does not: a lower profile would reach more",
                "add it to the reach of x",
            )
        ],
    ),
    (
        {"corridor": (CorridorEntry("side", FEED.address, FEED.port),)},
        [
            (
                "error",
                "corridor entry side",
                "it opens the gated service feed to every known device, whatever its standing",
                "remove it from the corridor",
            )
        ],
    ),
    (
        {"always_allowed": (ip_network("0.0.0.0/0"),)},
        [
            (
                "error",
                "always_allowed 0.0.0.0/0",
                "it allows every client, devices too: nothing would be gated",
                "name the clients' own prefixes",
            )
        ],
    ),
    ({"classes": (DeviceClass("c", ALL, given(suspect=PROBATION)),)}, []),
    ({"classes": (DeviceClass("c", ALL, given(ADMITTED)),)}, []),
    ({"classes": (DeviceClass("c", ALL, given(PROBATION, PROBATION)),)}, []),
    ({"classes": (DeviceClass("c", ALL, given(ADMITTED, PROBATION)),)}, []),
    (
        {"classes": (DeviceClass("c", ALL, given(DENY, PROBATION)),)},
        [
            (
                "error",
                "class c",
                "suspect gets probation and trusted only deny: a lower standing would reach more",
                "give suspect deny or less",
            )
        ],
    ),
    (
        {"classes": (DeviceClass("c", ALL),)},
        [
            (
                "warning",
                "class c",
                "it says nothing: no standings, max_age, recovery_passes or quorum",
                "write standings, or remove it",
            )
        ],
    ),
    (
        {"devices": {CAM: Level()}},
        [
            (
                "warning",
                "device cam-1",
                "it says nothing: no standings, max_age, recovery_passes or quorum",
                "write standings, or remove it",
            )
        ],
    ),
    ({"deployments": (Deployment("d", ALL, given(ADMITTED)),)}, []),
    ({"deployments": (Deployment("d", ALL, services=("feed", "time")),)}, []),
    (
        {"deployments": (Deployment("d", ALL, given(DENY, PROBATION)),)},
        [
            (
                "error",
                "deployment d",
                "suspect gets probation and trusted only deny: a lower standing would reach more",
                "give suspect deny or less",
            )
        ],
    ),
    (
        {"deployments": (Deployment("d", ALL, given(PROBATION), ("time", "food", "feed")),)},
        [
            ("error", "deployment d", "the book has no service food", "name one of the book's services"),
            (
                "error",
                "deployment d",
                "its devices need feed, and probation, which they get when trusted, does not reach it",
                "let probation reach it, or give another profile",
            ),
        ],
    ),
    (
        {"deployments": (Deployment("d", ALL, given(ADMITTED), ("feed",)),)},
        [
            (
                "error",
                "deployment d",
                "its devices get admitted when trusted, which reaches time as well",
                "list it among the deployment's services, or give a profile that reaches less",
            )
        ],
    ),
    (
        {"site": (SiteProfile("admitted"),)},
        [
            (
                "error",
                "site admitted",
                "it is a profile of devices",
                "name a site profile, such as lockdown",
            )
        ],
    ),
    (
        {"site": (SiteProfile("lockdwn"),), "profiles": {"lockdown": LOCKDOWN, "b": Profile("b", site=True)}},
        [
            (
                "error",
                "site lockdwn",
                "the profiles folder has no such site profile",
                "use one of b, lockdown",
            )
        ],
    ),
    (
        {
            "site": (
                SiteProfile("normal"),
                SiteProfile("lockdown", (Condition(S.HELD, ">", 1),)),
                SiteProfile("elevated"),
            )
        },
        [
            (
                "error",
                f"site {name}",
                "it is never reached: normal above it has no condition",
                "move it above normal, or remove it",
            )
            for name in ("lockdown", "elevated")
        ],
    ),
    (
        {"site": (SiteProfile("lockdown", (Condition(S.HELD, ">", 1, device_class="cams"),)),)},
        [("error", "site lockdown", "the book has no class cams", "name one of the book's classes")],
    ),
    (
        {"classes": (DeviceClass("c", ALL, given(ADMITTED)),) * 2},
        [("error", "class c", "the name is listed twice", "give each a name of its own")],
    ),
    (
        {"services": (), "node_default": DENY, "suspect": DENY},
        [("warning", "services", "the book protects no service", "list the gated services")],
    ),
    (
        {"node_default": DENY, "suspect": DENY},
        [
            (
                "warning",
                "node_default",
                "no device reaches anything, trusted or not",
                "set it to admitted, or list devices",
            )
        ],
    ),
    ({"node_default": DENY, "suspect": DENY, "deployments": (Deployment("d", ALL, given(PROBATION)),)}, []),
    ({"node_default": DENY, "suspect": DENY, "devices": {CAM: given(PROBATION)}}, []),
]


@pytest.mark.parametrize(("change", "wanted"), BY_ITSELF)
def test_a_book_by_itself(change: Mapping[str, object], wanted: list[tuple[str, ...]]) -> None:
    plain = {**change, "profiles": change.get("profiles", {})}
    assert check(replace(BOOK, **plain)) == tuple(wanted)  # type: ignore[arg-type]


def test_each_service_of_contradicting_lists_is_told_once() -> None:
    odd = replace(FEED, profiles=(PROBATION,))
    findings = check(replace(BOOK, services=(odd, replace(odd, name="odd", port=9))))
    assert [finding.subject for finding in findings] == ["service feed", "service odd"]


# --- against the inventory ----------------------------------------------------------------------------------------


def device(name: str = "cam-1", *addresses: str, **labels: str) -> Device:
    bound = Binding(DeviceId(name), tuple(Address.parse(each) for each in addresses or ("10.77.1.11",)))
    return Device(DeviceId(name), SourceName("verifier"), bound, tuple(labels.items()))


def test_what_a_book_and_an_inventory_contradict_word_for_word() -> None:
    book = replace(BOOK, devices={DeviceId("cam-l"): ADMITTED, CAM: ADMITTED})
    assert check_against(book, [device("cam-1", "10.77.3.2", "10.77.9.1")]) == (
        (
            "error",
            "device cam-1",
            "its address 10.77.3.2 is that of service time: cutting one would cut the other",
            "give each an address of its own",
        ),
        (
            "error",
            "device cam-1",
            "its address 10.77.9.1 lies in always_allowed 10.77.9.0/24: it would never be gated",
            "narrow the prefix, or move the device out of it",
        ),
        (
            "error",
            "device cam-l",
            "the book gives it a profile, but the inventory does not list it",
            "correct the name, or remove it from the book",
        ),
    )


@pytest.mark.parametrize(
    ("allowed", "address", "never"),
    [
        ("10.77.1.11/32", "10.77.1.11", True),
        ("10.77.1.10/32", "10.77.1.11", False),
        ("10.77.1.12/32", "10.77.1.11", False),
        ("::/8", "10.77.1.11", False),
        ("fd77:0:0:2::/128", "fd77:0:0:2::/64", True),
        ("fd77:0:0:2:ffff:ffff:ffff:ffff/128", "fd77:0:0:2::/64", True),
        ("fd77:0:0:1:ffff:ffff:ffff:ffff/128", "fd77:0:0:2::/64", False),
        ("fd77:0:0:3::/128", "fd77:0:0:2::/64", False),
        ("fd77:0:0:2::/64", "fd77:0:0:2::9", True),
        ("fd77:0:0:2::/64", "fd77:0:0:3::9", False),
    ],
)
def test_a_device_within_what_is_always_allowed(allowed: str, address: str, never: bool) -> None:
    book = replace(BOOK, always_allowed=(ip_network(allowed),))
    assert bool(check_against(book, [device("cam-1", address)])) is never


@pytest.mark.parametrize(
    ("address", "shared"),
    [("fd77::2", True), ("fd77::3", False), ("fd77::/64", True), ("fd77:0:0:1::/64", False)],
)
def test_an_address_beside_a_service_is_another_one(address: str, shared: bool) -> None:
    book = replace(BOOK, services=(replace(FEED, address=ip_address("fd77::2")),))
    assert bool(check_against(book, [device("cam-1", address)])) is shared


def test_rules_that_disagree_or_match_nobody_word_for_word() -> None:
    book = replace(
        BOOK,
        deployments=(
            Deployment("a", Match(labels=(("app", "x"),)), given(ADMITTED)),
            Deployment("b", Match(id="cam-*"), given(PROBATION)),
            Deployment("none", Match(id="none"), given(PROBATION)),
        ),
        classes=(
            DeviceClass("a", Match(labels=(("app", "x"),)), given(ADMITTED)),
            DeviceClass("b", Match(id="door-*"), given(PROBATION)),
        ),
    )
    cameras = [device(f"cam-{n}", f"10.77.1.{n}", app="x") for n in (1, 2, 3)]
    assert check_against(book, cameras) == (
        (
            "warning",
            "deployment b",
            (
                "3 devices (cam-1 first) match a (trusted admitted) and b (trusted probation): "
                "the more restrictive wins"
            ),
            "narrow a match, or say what is meant for the device by its name",
        ),
        ("warning", "deployment none", "no device of the inventory matches it", "correct the match, or remove it"),
        ("warning", "class b", "no device of the inventory matches it", "correct the match, or remove it"),
    )


def test_a_quorum_beyond_the_sources_word_for_word() -> None:
    level = Level(quorum=2)
    book = replace(
        BOOK,
        deployments=(Deployment("d", ALL, level), Deployment("one", ALL, Level(quorum=1))),
        classes=(DeviceClass("c", ALL, level), DeviceClass("none", ALL, Level(max_age=1.0))),
        devices={CAM: level},
    )
    what = "quorum 2: no device of the inventory has more than 1 source, so none would be trusted"
    assert check_against(book, [device()]) == tuple(
        ("error", subject, what, "write quorum: 1, or list further sources of the devices")
        for subject in ("deployment d", "class c", "devices cam-1")
    )
    two = replace(device(), also=(SourceName("second"),))
    assert check_against(book, [device(), two]) == ()
    more = replace(book, devices={CAM: Level(quorum=3)})
    (found,) = check_against(more, [device(), two])
    assert found.what == "quorum 3: no device of the inventory has more than 2 sources, so none would be trusted"


# --- lock-out -----------------------------------------------------------------------------------------------------

OFFICE, HALVES = ip_network("fd77:9::/64"), (ip_network("fd77:9::/65"), ip_network("fd77:9::8000:0:0:0/65"))
AT = ip_network("10.77.2.2/32")


def test_a_lost_management_prefix_word_for_word() -> None:
    links = Links(management=(OFFICE,))
    what = "management from fd77:9::/64 is not in it{}: who administers the site would reach no gated service"
    had = replace(BOOK, always_allowed=HALVES)
    for old, any_more in ((None, ""), (BOOK, ""), (had, " any more")):
        mend = "add fd77:9::/64 to always_allowed"
        assert check_lockout(old, BOOK, links) == (("error", "always_allowed", what.format(any_more), mend),)
    assert check_lockout(None, had, links) == ()


def test_a_service_on_the_verifier_at_the_first_load_word_for_word() -> None:
    here = Service("near", ip_address("10.77.2.2"), 9)
    loop = Service("loop", ip_address("127.0.0.1"), 9)
    links = Links(verifiers=(AT, ip_network("127.0.0.0/8")))
    shut = replace(BOOK, services=(here, loop), corridor=())
    assert check_lockout(None, shut, links) == (
        (
            "error",
            "service near",
            "it is on the verifier's address 10.77.2.2, to which the corridor has no way",
            "list the verifier's endpoint under corridor",
        ),
    )
    assert check_lockout(None, shut, Links()) == ()


def test_a_lost_or_gated_way_to_the_verifier_word_for_word() -> None:
    links = Links(verifiers=(AT,))
    named = "the verifier's endpoint 10.77.2.2 port 8100/tcp"
    never = "a device that failed once could never attest again"
    assert check_lockout(BOOK, replace(BOOK, corridor=()), links) == (
        ("error", "corridor", f"verifier is gone, {named}: {never}", "put verifier back"),
    )
    gates = replace(BOOK, services=(Service("attest", VERIFIER.address, VERIFIER.port),), corridor=())
    assert check_lockout(BOOK, gates, links) == (
        (
            "error",
            "service attest",
            f"it gates {named}: {never}",
            "put it back into the corridor as verifier",
        ),
    )


def test_a_service_that_gates_two_ends_of_ours_is_told_once() -> None:
    ours = (Link("console", None, 8001), Link("door", ip_address("10.77.3.2"), 8001))
    links = Links(ours=ours, host=frozenset({ip_address("10.77.3.2")}))
    assert check_lockout(None, BOOK, links) == (
        (
            "error",
            "service feed",
            "it gates the console at every address of this host port 8001/tcp: a cut would reach ourselves",
            "remove it, or move one of the two",
        ),
    )


def test_the_built_in_profiles() -> None:
    assert dict(BUILT_IN) == {
        DENY: Profile(DENY, 0, ()),
        PROBATION: Profile(PROBATION, 50),
        ADMITTED: Profile(ADMITTED, 100),
    }
