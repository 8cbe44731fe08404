"""What stands for which decisions: budgets, what gives way, order, trials, and the shipped profiles."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import Address, Binding, Decision, Device, DeviceId, SourceName, Standing
from gateway.kubearmor.budget import count, uses
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import Document, NetworkSpec
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parameters import Parameter, Type
from gateway.kubearmor.parse import parse
from gateway.kubearmor.render import Library, Renderer, Rendering, TargetKind, render_all, try_library
from gateway.kubearmor.template import Template, compile_template

TARGETS = {"app": ("network", "host", "container"), "gateway": ("path_gate", "network")}
APP = TargetKind("app", "container")


def container(name: str, rule: str, action: str = "Block", app: str = "app$") -> str:
    return f"""\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{kubearmor.io/container.name: {app}}}}}
  file:
    matchDirectories:
      - {{{rule}}}
  action: {action}
"""


def of_host(text: str) -> str:
    return text.replace("KubeArmorPolicy", "KubeArmorHostPolicy").replace(
        "selector: {matchLabels: {kubearmor.io/container.name: app$}}",
        'nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}',
    )


FEED = container("60-feeds", 'dir: "/srv/feeds/${device.id}/", recursive: true')
HOST = of_host(FEED)
SHUT = container("80-shut", "dir: /srv/, recursive: true")
NETWORK = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: 70-block}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "${target.name}"}}
  ingress:
    - from: [{ipBlock: {cidr: "${device.address}"}}]
      ports: [{port: "8001", protocol: TCP}]
  action: Block
"""


def templates(profile: str, *texts: str, site: bool = False) -> tuple[Template, ...]:
    found: list[Document] = []
    for number, text in enumerate(texts):
        found += parse(text.encode(), f"{profile}{number}.yaml", Notes(Mode.VM))
    return tuple(compile_template(each, {}, profile, site=site) for each in found)


def device(number: int) -> Device:
    name = DeviceId(f"cam-{number}")
    return Device(name, SourceName("s"), Binding(name, (Address((0x0A000000 + number).to_bytes(4), 32),)))


def having(profile: str, devices: Iterable[Device]) -> list[tuple[Device, Decision]]:
    return [(each, Decision(each.id, Standing.DISTRUSTED, profile, None, ())) for each in devices]


def rendering(library: Library, devices: Sequence[Device], site: str = "normal") -> Rendering:
    return render_all(library, TARGETS, having("quarantine", devices), site)


LIBRARY = Library(
    {"quarantine": templates("quarantine", FEED, NETWORK), "admitted": ()},
    {
        "normal": templates("normal", container("20-fixed", "dir: /usr/bin/, readOnly: true"), site=True),
        "lockdown": templates("lockdown", container("80-closed", "dir: /srv/feeds/, recursive: true"), site=True),
    },
)
MANY = [device(number) for number in range(300)]


def directories(document: Document) -> list[str]:
    assert not isinstance(document.body, NetworkSpec)
    assert document.body.file is not None
    return [rule.directory for rule in document.body.file.directories]


def test_documents_stand_at_the_targets_that_take_their_kind() -> None:
    made = rendering(LIBRARY, MANY[:2])
    assert set(made.documents) == {APP, TargetKind("app", "network"), TargetKind("gateway", "network")}
    names = [each.name.rpartition("-")[0] for each in made.documents[APP]]
    assert names == ["20-container-fixed", "60-container-feeds"]
    assert sorted(made.texts()) == sorted(
        f"{place}/{each.name}" for place, found in made.documents.items() for each in found
    )
    assert '"kubearmor.io/hostname":"gateway"' in next(
        text for key, text in made.texts().items() if key.startswith("gateway/network/")
    )


def test_without_a_device_only_the_site_stands() -> None:
    assert set(rendering(LIBRARY, []).documents) == {APP}
    assert len(rendering(LIBRARY, []).documents[APP]) == 1
    assert not rendering(LIBRARY, [], "elevated").documents


def test_the_order_of_devices_changes_nothing() -> None:
    mixed = MANY[:50]
    random.Random(1).shuffle(mixed)
    assert rendering(LIBRARY, mixed).texts() == rendering(LIBRARY, MANY[:50]).texts()


def test_no_generation_is_in_it() -> None:
    assert not any("gen=" in text for text in rendering(LIBRARY, MANY[:5]).texts().values())


moves = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from(["quarantine", "maintenance", "admitted", "unheard"])),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(moves, st.sampled_from(["normal", "lockdown"])), max_size=5))
def test_rendering_what_changed_is_rendering_everything(rounds: list[tuple[list[tuple[int, str]], str]]) -> None:
    library = Library(
        {
            "quarantine": templates("quarantine", FEED, NETWORK, HOST.replace("60", "61")),
            "maintenance": templates("maintenance", container("62-all", "dir: /srv/all/")),
            "admitted": (),
        },
        LIBRARY.site,
    )
    renderer = Renderer(library, TARGETS)
    assert renderer.documented == {"quarantine", "maintenance"}
    have: dict[int, str] = {}
    for moved, site in rounds:
        for number, profile in moved:
            have[number] = profile
            renderer.move(MANY[number], profile)
        every = [pair for number, profile in have.items() for pair in having(profile, [MANY[number]])]
        made = renderer.render(site)
        assert made == render_all(library, TARGETS, every, site)
        assert all(one is other for one, other in zip(made.at("app"), renderer.render(site).at("app"), strict=True))
    (name,) = renderer.networks("gateway")
    assert name.startswith("70-network-block-")


# --- budgets ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.sampled_from(["normal", "lockdown"]))
def test_no_table_overflows_and_no_device_is_left_out(number: int, site: str) -> None:
    made = rendering(LIBRARY, MANY[:number], site)
    documents = made.documents.get(APP, ())
    bodies = [each.body for each in documents]
    assert count([body for body in bodies if not isinstance(body, NetworkSpec)]) <= 256
    denied = {directory for each in documents for directory in directories(each)}
    assert all({f"/srv/feeds/{each.id}/", "/srv/feeds/"} & denied for each in MANY[:number])
    assert bool(made.collapses) is any("COLLAPSED" in body.tags for body in bodies)


def test_what_does_not_fit_gives_way_to_the_site() -> None:
    fits = rendering(LIBRARY, MANY[:124])
    assert not fits.collapses
    assert [(each.entries, each.limit) for each in fits.usages["app"]] == [(254, 256)]
    made = rendering(LIBRARY, MANY[:126])
    (gone,) = made.collapses
    assert (gone.target, gone.profile, gone.devices, gone.directories) == (
        "app",
        "quarantine",
        126,
        ("/srv/feeds/",),
    )
    (wide,) = (each for each in made.documents[APP] if each.name == gone.name)
    assert gone.name.startswith("60-container-site-feeds-")
    assert directories(wide) == ["/srv/feeds/"]
    spec = wide.render()["spec"]
    assert isinstance(spec, dict)
    (rule,) = spec["file"]["matchDirectories"]
    assert rule == {
        "dir": "/srv/feeds/",
        "recursive": True,
        "message": "too many devices for one table: all of /srv/feeds/ is denied",
    }
    assert "COLLAPSED" in spec["tags"]


def test_the_largest_gives_way_first_and_the_others_stay() -> None:
    other = container("61-logs", 'dir: "/srv/logs/${device.id}/", recursive: true')
    library = Library({"quarantine": templates("quarantine", FEED), "maintenance": templates("maintenance", other)})
    both = [*having("quarantine", MANY[:100]), *having("maintenance", MANY[100:150])]
    made = render_all(library, TARGETS, both, "normal")
    assert [each.profile for each in made.collapses] == ["quarantine"]
    denied = [directory for each in made.documents[APP] for directory in directories(each)]
    assert denied.count("/srv/feeds/") == 1
    assert len([each for each in denied if each.startswith("/srv/logs/cam-")]) == 50


def test_other_containers_have_tables_of_their_own() -> None:
    other = container("61-logs", 'dir: "/srv/logs/${device.id}/", recursive: true', app="log$")
    library = Library({"quarantine": templates("quarantine", FEED, other)})
    assert not rendering(library, MANY[:100]).collapses


def test_a_host_shares_its_table_with_our_own_policy() -> None:
    library = Library({"quarantine": templates("quarantine", HOST)})
    assert not rendering(library, MANY[:60]).collapses
    assert rendering(library, MANY[:63]).collapses
    assert rendering(library, MANY[:60]).usages["app"][0].limit == 128


def many_paths(number: int) -> str:
    rules = "".join(f"      - {{path: /opt/{each}}}\n" for each in range(number))
    text = container("10-many", "dir: /x/")
    return text.replace("    matchDirectories:\n      - {dir: /x/}\n", f"    matchPaths:\n{rules}")


def test_what_cannot_give_way_is_refused_at_the_trial() -> None:
    library = Library(
        {"quarantine": templates("quarantine", FEED)}, {"normal": templates("normal", many_paths(254), site=True)}
    )
    (refused,) = try_library(library, {"app": ("container",)}, MANY[:2])
    assert "2 policies take 258 entries of its table, 256 are granted" in str(refused)
    with pytest.raises(DocumentRefused, match="256 are granted"):
        rendering(library, MANY[:2])


# --- trials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "section", "code"),
    [
        ("container", "file: {matchPatterns: [{pattern: /srv/*/key}]}", "KA-IGNORED-PATTERN"),
        ("container", "process: {matchPatterns: [{pattern: /usr/bin/*nc}]}", "KA-IGNORED-PATTERN"),
        ("container", "syscalls: {matchSyscalls: [{syscall: [unlink]}]}", "KA-SYSCALL-AUDIT"),
        (
            "host",
            "capabilities: {matchCapabilities: [{capability: net_raw, fromSource: [{path: /bin/a}]}]}",
            "KA-IGNORED-CAPABILITY",
        ),
    ],
)
def test_what_kubearmor_would_take_and_not_enforce_is_refused(kind: str, section: str, code: str) -> None:
    """It answers Applied: who reads the profile would believe it."""
    rules = "  file:\n    matchDirectories:\n      - {dir: /srv/, recursive: true}\n"
    text = (SHUT if kind == "container" else of_host(SHUT)).replace(rules, f"  {section}\n")
    library = Library({"quarantine": templates("quarantine", text)}, {})
    (refusal,) = try_library(library, {"app": ("host", "container")}, MANY[:2])
    assert code in str(refusal)


def test_a_good_library_passes() -> None:
    assert try_library(LIBRARY, TARGETS, MANY) == ()
    assert try_library(Library(), TARGETS, MANY) == ()


def test_values_of_devices_that_have_another_profile_now_are_tried() -> None:
    long = Device(DeviceId("x" * 64), SourceName("s"), Binding(DeviceId("x" * 64), MANY[0].binding.addresses))
    refused = try_library(LIBRARY, TARGETS, [*MANY, long, long])
    assert len(refused) == 2
    assert "quarantine0.yaml:8:15: for device xxx" in str(refused[0])
    assert len(try_library(LIBRARY, TARGETS, [long] * 50)) == 20


IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", fullmatch=True).filter(lambda text: ".." not in text)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(IDS, st.sampled_from(["hall", "a b", "x" * 40])),
        min_size=1,
        max_size=6,
        unique_by=lambda each: each[0],
    )
)
def test_devices_that_are_taken_as_alike_are(named: list[tuple[str, str]]) -> None:
    """Whatever is tried once for several: each is refused together with others if, and only if, it is alone."""
    found = templates_with_room()
    devices = [
        Device(
            DeviceId(name), SourceName("s"), Binding(DeviceId(name), MANY[0].binding.addresses), (("room", room),)
        )
        for name, room in named
    ]
    library = Library({"quarantine": found})
    alone = [str(refused) for each in devices for refused in try_library(library, TARGETS, [each])]
    assert [str(refused) for refused in try_library(library, TARGETS, devices, 1_000)] == sorted(
        alone, key=lambda text: [f"for device {each.id}:" in text for each in devices].index(True)
    )


def templates_with_room() -> tuple[Template, ...]:
    rule = 'dir: "/srv/feeds/${device.labels.room}/x-${device.id}/", message: "of ${device.id}"'
    (document,) = parse(container("60-feeds", rule).encode(), "x.yaml", Notes(Mode.VM))
    declared = {"device.labels.room": Parameter(Type.WORD)}
    return (compile_template(document, declared, "quarantine"),)


def test_a_later_rule_never_loosens_an_earlier_one() -> None:
    loose = container("70-loose", 'dir: "/srv/feeds/${device.id}/", recursive: true, readOnly: true')
    closed = container("10-closed", "dir: /srv/feeds/, recursive: true")
    library = Library({"quarantine": templates("quarantine", FEED), "maintenance": templates("maintenance", loose)})
    (refused,) = try_library(library, TARGETS, MANY[:1])
    assert "would loosen the one at quarantine0.yaml:8:9" in str(refused)
    assert "a higher number" in str(refused)
    beside = Library(
        {"maintenance": templates("maintenance", loose)}, {"lockdown": templates("lockdown", closed, site=True)}
    )
    (refused,) = try_library(beside, TARGETS, MANY[:1])
    assert "maintenance0.yaml:8:9" in str(refused)


def test_whatever_a_trial_lets_pass_is_rendered() -> None:
    for number in (0, 1, 63, 128, 300):
        for site in ("normal", "lockdown", "unheard"):
            rendering(LIBRARY, MANY[:number], site)


def test_uses_of_the_widened_rule_cover_those_of_each_device() -> None:
    (wide,) = (each for each in rendering(LIBRARY, MANY).documents[APP] if "COLLAPSED" in each.body.tags)
    assert not isinstance(wide.body, NetworkSpec)
    (use,) = uses(wide.body)
    assert use.value[0] == "Block"
    assert json.dumps(wide.render()).count("cam-") == 0
