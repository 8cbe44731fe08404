"""The book's file in its second version: every key, every mistake with its place, and the published schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from gateway.config import load_book
from gateway.config.book import read_book
from gateway.config.findings import _of_the_unheard
from gateway.config.schema import SCHEMAS, book_schema, devices_schema, profile_schema, render
from gateway.core.errors import ConfigError
from gateway.core.model import Standing
from gateway.core.policy import (
    AlertThreshold,
    Book,
    Condition,
    Level,
    Match,
    Profile,
    Rate,
    ResourceThreshold,
    Thresholds,
)
from tests.schemas import fits

S = Standing
POLICIES = Path(__file__).parents[1] / "policies"

BOOK = """\
targets: {gateway: {kinds: [path_gate, network, host]}}
profiles: profiles/
services:
  - {name: feed, address: 10.77.3.2, port: 8001}
  - {name: status, address: 10.77.3.2, port: 8051, profiles: [probation, admitted]}
corridor: [{name: verifier, address: 10.77.2.2, port: 8100}]
always_allowed: [10.77.9.0/24]
node_default: {trusted: admitted, suspect: probation, distrusted: quarantine}
deployments:
  - {name: cctv, match: {labels: {app: cctv}}, services: [status], standings: {trusted: service}}
classes:
  - {name: cameras, match: {labels: {class: camera}, id: "cam-*", prefix: 10.77.1.0/24},
     standings: {trusted: admitted}, max_age: 15m, recovery_passes: 3, quorum: 1}
  - {name: doors, match: {prefix: [10.77.4.0/24, "fd77::/64"]}, standings: probation}
devices:
  cam-1: probation
  cam-2: {standings: {trusted: admitted, suspect: deny}, max_age: 60, recovery_passes: 1}
site:
  - {name: lockdown, when: {distrusted: ">= 3"}}
  - {name: elevated, when: {distrusted: ">=1", trusted: "< 50%"}}
  - {name: elevated2, when: {class: cameras, trusted: "== 0"}}
  - {name: normal}
thresholds:
  alerts: {suspect: {severity: 8, count: 3, within: 60s}, alarm: {severity: 5, count: 20, within: 5m}}
  resources: {cpu: {above: 90%, for: 2m}, memory: {above: 80%, for: 1m}}
cut_on_hints: [hook, verifier.feed]
"""

FOLDER = {
    "quarantine": "rank: 10\nreach: []\n",
    "service": "rank: 60\nreach: [status]\nrate: {new_connections: 10/s}\n"
    "parameters: {folder: /srv, depth: 2, share: 0.5, strict: true, paths: [/a, /b], more: {x: '1'}}\n"
    "documents: [host.yaml]\n",
    "admitted": "reach: all\nrate: null\n",
    "lockdown": "site: true\ndocuments: [host.yaml]\n",
    "elevated": "site: true\n",
    "elevated2": "site: true\n",
    "normal": "site: true\n",
}


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    put(tmp_path / "book.yaml", BOOK)
    for name, text in FOLDER.items():
        put(tmp_path / "profiles" / name / "profile.yaml", text)
        put(tmp_path / "profiles" / name / "host.yaml", "")
    return tmp_path / "book.yaml"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} must stand once in {path.name}"
    put(path, text.replace(old, new))


def error_of(read: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        read()
    return str(caught.value)


# --- what is read -------------------------------------------------------------------------------------------------


def test_levels_are_read(path: Path) -> None:
    book = load_book(path)
    assert (book.node_default, book.suspect, book.others) == (
        "admitted",
        "probation",
        {S.DISTRUSTED: "quarantine"},
    )
    (cctv,) = book.deployments
    assert (cctv.name, cctv.match, cctv.services) == ("cctv", Match((("app", "cctv"),)), ("status",))
    assert cctv.level == Level({S.TRUSTED: "service"})
    cameras, doors = book.classes
    assert cameras.match == Match((("class", "camera"),), "cam-*", (ip_network("10.77.1.0/24"),))
    assert cameras.level == Level({S.TRUSTED: "admitted"}, 900.0, 3, 1)
    assert doors.match == Match(prefixes=(ip_network("10.77.4.0/24"), ip_network("fd77::/64")))
    assert doors.level == Level({S.TRUSTED: "probation"})
    assert book.devices == {
        "cam-1": "probation",
        "cam-2": Level({S.TRUSTED: "admitted", S.SUSPECT: "deny"}, 60.0, 1),
    }


def test_profiles_are_read_from_their_folder(path: Path) -> None:
    book = load_book(path)
    folder = path.parent / "profiles"
    assert book.profiles["service"] == Profile(
        "service",
        60,
        ("status",),
        Rate(10, 1.0),
        (str(folder / "service" / "host.yaml"),),
        {"folder": "/srv", "depth": 2, "share": 0.5, "strict": True, "paths": ("/a", "/b"), "more": {"x": "1"}},
    )
    assert book.profiles["admitted"] == Profile("admitted", 100, "all")
    assert book.profiles["quarantine"] == Profile("quarantine", 10, ())
    assert book.profiles["lockdown"].site
    assert book.profiles["probation"].rank == 50
    reached = {profile.name: [service.name for service in book.reach(profile.name)] for profile in book.ordered()}
    assert reached == {
        "deny": [],
        "quarantine": [],
        "probation": ["status"],
        "service": ["status"],
        "admitted": ["feed", "status"],
    }


def test_the_site_is_read(path: Path) -> None:
    book = load_book(path)
    assert [(rule.name, rule.when) for rule in book.site] == [
        ("lockdown", (Condition(S.DISTRUSTED, ">=", 3),)),
        ("elevated", (Condition(S.DISTRUSTED, ">=", 1), Condition(S.TRUSTED, "<", 50, share=True))),
        ("elevated2", (Condition(S.TRUSTED, "==", 0, device_class="cameras"),)),
        ("normal", ()),
    ]
    assert book.targets == {"gateway": ("path_gate", "network", "host")}
    cpu, memory = ResourceThreshold(0.9, 120.0), ResourceThreshold(0.8, 60.0)
    assert book.thresholds == Thresholds(AlertThreshold(8, 3, 60.0), cpu, memory, AlertThreshold(5, 20, 300.0))


def test_a_first_version_file_means_the_same_as_before(tmp_path: Path) -> None:
    put(
        tmp_path / "book.yaml",
        "services: [{name: feed, address: 10.77.3.2, port: 8001}]\n"
        "node_default: admitted\nsuspect: probation\ndevices: {cam-1: deny}\n",
    )
    book = load_book(tmp_path / "book.yaml")
    assert (book.node_default, book.suspect, book.devices) == ("admitted", "probation", {"cam-1": "deny"})
    assert set(book.profiles) == {"deny", "probation", "admitted"}
    assert (book.deployments, book.classes, book.site, book.targets) == ((), (), (), {})


# --- mistakes -----------------------------------------------------------------------------------------------------

MISTAKES = [
    ("targets:", "target:", "book.yaml:1:1: 'target' is not known in the file; did you mean 'targets'?"),
    ("kinds: [path_gate", "kind: [path_gate", "1:21: 'kind' is not known in gateway; did you mean 'kinds'?"),
    ("network, host]", "network, hots]", "1:49: kinds 'hots' is not known; did you mean 'host'?"),
    ("profiles: profiles/", "profiles: profile/", "2:11: "),
    ("profiles: [probation, admitted]", "profiles: [probation, admited]", "did you mean 'admitted'?"),
    ("profiles: [probation, admitted]", "profiles: [lockdown]", "'lockdown' is not known"),
    ("profiles: [probation, admitted]", "profiles: [deny]", "'deny' is not known"),
    ("{trusted: admitted, suspect: probation, d", "{truste: admitted, suspect: probation, d", "8:16: 'truste'"),
    ("suspect: probation, distrusted", "suspect: admitted, distrusted", "8:44: suspect 'admitted' is not known"),
    ("distrusted: quarantine", "distrusted: probation", "8:67: distrusted admits nothing, and probation reaches"),
    ("distrusted: quarantine}", "distrusted: quarantine, trusted: deny}", "'trusted' stands here twice, first at"),
    ("trusted: admitted, suspect: probation", "trusted: deny, suspect: probation", "8:15: suspect gets probation"),
    ("distrusted: quarantine}\n", "distrusted: quarantine}\nsuspect: deny\n", "9:10: node_default says already"),
    ("app: cctv}}, services: [status]", "app: cctv}}, services: [stats]", "10:5: deployment cctv: the book has no"),
    ("services: [status]", "services: [feed]", "10:5: deployment cctv: its devices need feed"),
    ("name: cctv, match: {labels: {app: cctv}}", "name: cctv", "10:5: a deployment needs 'match'"),
    ("{labels: {app: cctv}}", "{}", "10:25: it matches every device"),
    (
        "{labels: {app: cctv}}",
        "{label: {app: cctv}}",
        "10:26: 'label' is not known in match; did you mean",
    ),
    ("{labels: {app: cctv}}", "{labels: {app: [cctv]}}", "10:40: app must be a single value"),
    ('id: "cam-*"', 'id: "cam *"', "12:58: id: 'cam *' matches no device id"),
    ("prefix: 10.77.1.0/24", "prefix: 10.77.1.1/24", "prefix: '10.77.1.1/24' has host bits; write 10.77.1.0/24"),
    ("max_age: 15m", "max_age: 15 minutes", "13:47: max_age: '15 minutes' is no duration"),
    ("max_age: 15m", "max_age: 8d", "13:47: max_age of 691200 seconds is out of range"),
    (
        "recovery_passes: 3",
        "recovery_passes: 0",
        "recovery_passes '0' must be a whole number; write one",
    ),
    ("quorum: 1", "quorum: two", "quorum 'two' must be a whole number"),
    ("name: doors", "name: cameras", "14:5: class cameras: the name is listed twice"),
    (
        "standings: probation",
        "standing: probation",
        "'standing' is not known in a class; did you mean",
    ),
    ("  cam-1: probation\n", "  cam-1: probation\n  cam-1: deny\n", "17:3: 'cam-1' stands here twice"),
    ("cam-1: probation", "cam-1: quarantin", "16:10: cam-1 'quarantin' is not known; did you mean 'quarantine'?"),
    ("suspect: deny}, max_age", "suspect: deny}, max_agee", "did you mean 'max_age'?"),
    ("  cam-2:", "  ..:", "17:3: a key: device id '..'"),
    ('">= 3"', '"3"', "19:41: distrusted: '3' is no condition"),
    ('">= 3"', '">= 3.5"', "'>= 3.5' is no condition"),
    ('"< 50%"', '"< 101%"', "'< 101%' is no condition"),
    ('{distrusted: ">= 3"}', '{distruste: ">= 3"}', "19:29: 'distruste' is not known in when"),
    ('{distrusted: ">= 3"}', "{}", "19:28: when without a condition"),
    ("class: cameras, trusted", "class: camera, trusted", "21:5: site elevated2: the book has no class camera"),
    ("name: lockdown,", "name: lockdwn,", "19:5: site lockdwn: the profiles folder has no such site profile"),
    ("name: lockdown,", "name: probation,", "19:5: site probation: it is a profile of devices"),
    ("  - {name: normal}\n", "", ""),
    ("severity: 8", "severity: 11", "severity '11' must be a whole number; write one from 1 to 10"),
    ("severity: 8, ", "", "24:21: suspect needs 'severity'; write severity: 8"),
    ("above: 90%", "above: 90", "above: '90' is no share"),
    ("for: 2m", "for: 0", "for of 0 seconds is out of range"),
    ("for: 2m", "during: 2m", "'during' is not known in cpu"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_mistakes_have_a_place_and_a_mend(path: Path, old: str, new: str, expected: str) -> None:
    edit(path, old, new)
    if not expected:
        load_book(path)
        return
    assert expected in error_of(lambda: load_book(path))


PROFILE_MISTAKES = [
    (
        "service",
        "rank: 60",
        "rnk: 60",
        "service/profile.yaml:1:1: 'rnk' is not known in profile service",
    ),
    ("service", "rank: 60\n", "", "service/profile.yaml:1:1: profile service needs 'rank'; write rank: 60"),
    ("service", "rank: 60", "rank: 0", "1:7: rank '0' must be a whole number"),
    ("service", "rank: 60", "rank: 100", "profile service: its rank 100 is that of admitted too"),
    ("service", "[status]", "[feed]", "service status: probation reaches it and service does not"),
    ("service", "[status]", "[stats]", "profile service: it reaches stats, and the book has no such service"),
    ("service", "[status]", "some", "2:8: reach 'some' is not known"),
    ("service", "10/s", "10", "3:25: new_connections: '10' is no rate"),
    ("service", "10/s", "0/s", "'0/s' is no rate"),
    ("service", "depth: 2", "depth: 0o7x", ""),
    ("service", "[host.yaml]", "[../host.yaml]", "5:13: '../host.yaml' is no name of a document"),
    ("service", "[host.yaml]", "[hots.yaml]", "hots.yaml is no file"),
    ("service", "[host.yaml]", "[host.yaml, host.yaml]", "a document is listed twice"),
    ("lockdown", "site: true", "site: true\nrank: 5", "2:7: a site profile has no rank"),
    ("lockdown", "site: true", "site: yes", "1:7: site 'yes' is not known"),
    ("quarantine", "reach: []", "reach: [feed]", "quarantine reaches"),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), PROFILE_MISTAKES)
def test_mistakes_in_a_profile(path: Path, name: str, old: str, new: str, expected: str) -> None:
    edit(path.parent / "profiles" / name / "profile.yaml", old, new)
    if not expected:
        load_book(path)
        return
    assert expected in error_of(lambda: load_book(path))


@pytest.mark.parametrize("name", ["deny", "Upper", "cut", "a-b"])
def test_folders_that_cannot_name_a_profile(path: Path, name: str) -> None:
    put(path.parent / "profiles" / name / "profile.yaml", "rank: 70\nreach: all\n")
    assert f"{name}/profile.yaml: " in error_of(lambda: load_book(path))


def test_a_folder_without_a_profile(path: Path) -> None:
    (path.parent / "profiles" / "empty").mkdir()
    assert "empty/profile.yaml: cannot be read" in error_of(lambda: load_book(path))
    (path.parent / "profiles" / "empty").rmdir()
    put(path.parent / "profiles" / "README.md", "not a profile")
    load_book(path)


def test_a_service_that_a_reach_leaves_out_is_not_listed_for_it(path: Path) -> None:
    edit(path, "port: 8001}", "port: 8001, profiles: [service, admitted]}")
    assert "4:5: service has a reach of its own, and feed is not in it" in error_of(lambda: load_book(path))


def test_all_mistakes_come_at_once(path: Path) -> None:
    edit(path, "quorum: 1", "quorum: 0")
    edit(path, "severity: 8", "severity: 0")
    edit(path, "trusted: admitted, suspect: deny", "trusted: admited")
    message = error_of(lambda: load_book(path))
    assert [word in message for word in ("quorum", "severity", "admited")] == [True] * 3


def test_places_are_given_by_subject(path: Path) -> None:
    places = read_book(path).places
    wanted = {"class cameras": 12, "deployment cctv": 10, "device cam-2": 17, "site normal": 22, "node_default": 8}
    for subject, line in wanted.items():
        assert places[subject].startswith(f"{path}:{line}:")
    assert places["profile service"].endswith("service/profile.yaml:1:1")


# --- schemas ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schemas_are_those_of_the_readers(name: str) -> None:
    published = (POLICIES / name).read_text(encoding="utf-8")
    assert published == render(SCHEMAS[name]()), f"write policies/{name} anew from gateway.config.schema"
    assert json.loads(published)["$schema"].startswith("https://json-schema.org/")


def test_what_the_reader_takes_fits_the_schema(path: Path) -> None:
    assert fits(yaml.safe_load(BOOK), book_schema())
    assert fits(yaml.safe_load((POLICIES / "book.yaml").read_text(encoding="utf-8")), book_schema())
    for text in FOLDER.values():
        assert fits(yaml.safe_load(text), profile_schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [(old, new) for old, new, expected in MISTAKES if "is not known in" in expected or "whole number" in expected],
)
def test_keys_and_numbers_that_the_reader_refuses_do_not_fit(old: str, new: str) -> None:
    assert not fits(yaml.safe_load(BOOK.replace(old, new)), book_schema())


def test_every_word_of_the_schema_is_taken_by_the_reader(path: Path) -> None:
    """Each key that the schema offers in the book stands in one that the reader took."""
    taken = yaml.safe_load(BOOK) | {"suspect": "probation"}
    properties = book_schema()["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == set(taken)


def test_the_inventory_has_a_schema() -> None:
    device = {"id": "cam-1", "source": "verifier", "addresses": ["10.77.1.11"], "labels": {"class": "camera"}}
    assert fits({"hmac_keys": "devices.keys", "devices": [device | {"anchor": "l2"}]}, devices_schema())
    for wrong in (
        device | {"anchor": "l4"},
        device | {"id": "../x"},
        device | {"addresses": []},
        device | {"address": "10.77.1.11"},
        {"id": "cam-1"},
    ):
        assert not fits({"devices": [wrong]}, devices_schema())


ALERTS = AlertThreshold(8, 3, 60.0)


def unheard(thresholds: Thresholds, streams: tuple[str, ...] | None, remotes: int = 0) -> list[str]:
    kubearmor = None if streams is None else SimpleNamespace(streams=streams)
    config: Any = SimpleNamespace(
        book=Book(thresholds=thresholds),
        target=SimpleNamespace(name="gateway", kubearmor=kubearmor),
        remotes=(object(),) * remotes,
    )
    return [f"{each.severity} {each.subject}: {each.what}" for each in _of_the_unheard(config)]


@pytest.mark.parametrize("thresholds", [Thresholds(ALERTS), Thresholds(alarm=ALERTS)])
def test_thresholds_of_alerts_that_nobody_hears_are_told(thresholds: Thresholds) -> None:
    for streams in (None, (), ("logs", "messages")):
        (told,) = unheard(thresholds, streams)
        assert told.startswith("warning thresholds alerts: target gateway has no KubeArmor")
        assert unheard(thresholds, streams, remotes=1) == []  # an agent's file says whether its host has one
    assert unheard(thresholds, ("alerts",)) == []
    assert unheard(Thresholds(None, ResourceThreshold(0.9, 60.0)), None) == []


def test_a_threshold_that_no_number_of_alerts_reaches_is_told() -> None:
    (told,) = unheard(Thresholds(AlertThreshold(1, 201, 1.0)), ("alerts",))
    assert "no more than 200 of one source are taken" in told
    assert unheard(Thresholds(AlertThreshold(1, 200, 1.0)), ("alerts",)) == []
