"""Templates: which fields take which parameters, and what values can never do."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import Address, Binding, Device, DeviceId, SourceName
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import Document
from gateway.kubearmor.expand import pieces
from gateway.kubearmor.findings import Mode, Severity
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parameters import Parameter, Scope, Type, check_declared, check_value
from gateway.kubearmor.parse import parse
from gateway.kubearmor.template import Template, TemplateRefused, compile_template
from gateway.kubearmor.validate import judge

DECLARED = {
    "site.tenant": Parameter(Type.WORD, "north"),
    "site.note": Parameter(Type.TEXT, "ask the night desk, please"),
    "device.labels.room": Parameter(Type.WORD),
    "device.labels.floor": Parameter(Type.NUMBER, "0"),
}

CONTAINER = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: 60-feeds}
spec:
  selector: {matchLabels: {kubearmor.io/container.name: app$}}
  file:
    matchDirectories:
      - {dir: "/srv/feeds/${device.id}/", recursive: true, message: "feed of ${device.id}"}
  action: Block
"""
HOST = CONTAINER.replace("KubeArmorPolicy", "KubeArmorHostPolicy").replace(
    "selector: {matchLabels: {kubearmor.io/container.name: app$}}",
    'nodeSelector: {matchLabels: {kubearmor.io/hostname: "${target.name}"}}',
)
NETWORK = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: 70-block}
spec:
  nodeSelector: {matchLabels: {kubearmor.io/hostname: "*"}}
  message: "site is ${site.name}: ${site.note}"
  ingress:
    - from: [{ipBlock: {cidr: "${device.address}"}}]
      ports: [{port: "8001", protocol: TCP}]
      action: Block
  action: Block
"""


def read(text: str) -> Document:
    notes = Notes(Mode.VM)
    (document,) = parse(text.encode(), "x.yaml", notes)
    assert not [each for each in notes.found if each.severity is Severity.ERROR], notes.found
    return document


def template(text: str, *, site: bool = False) -> Template:
    return compile_template(read(text), DECLARED, "quarantine", site=site)


def device(name: str, *addresses: str, **labels: str) -> Device:
    found = tuple(Address.parse(text) for text in addresses or ("10.77.1.11",))
    own = DeviceId(name)
    return Device(own, SourceName("s"), Binding(own, found), tuple(labels.items()))


def rendered(text: str, *devices: Device, site: str = "normal", target: str = "edge") -> list[Document]:
    made = list(pieces(template(text), devices, site, target))
    return [piece.full for piece in made if piece.full is not None]


def errors(*documents: Document) -> list[str]:
    notes = Notes(Mode.VM)
    judge(documents, notes)
    return [str(each) for each in notes.found if each.severity is Severity.ERROR]


# --- what comes out -----------------------------------------------------------------------------------------------


def test_a_container_document_repeats_its_rule_for_each_device() -> None:
    (made,) = rendered(CONTAINER, device("cam-1"), device("cam-2"))
    assert made.render() == {
        "apiVersion": "security.kubearmor.com/v1",
        "metadata": {"name": "60-container-feeds-ff81e1df"},
        "spec": {
            "selector": {"matchLabels": {"kubearmor.io/container.name": "app$"}},
            "file": {
                "matchDirectories": [
                    {"dir": "/srv/feeds/cam-1/", "recursive": True, "message": "feed of cam-1"},
                    {"dir": "/srv/feeds/cam-2/", "recursive": True, "message": "feed of cam-2"},
                ]
            },
            "tags": ["RAGATE", "PROFILE=quarantine"],
            "action": "Block",
        },
    }
    assert errors(made) == []


def test_a_host_document_knows_its_target() -> None:
    (made,) = rendered(HOST, device("cam-1"), target="gateway")
    spec = made.render()["spec"]
    assert isinstance(spec, dict)
    assert spec["nodeSelector"] == {"matchLabels": {"kubearmor.io/hostname": "gateway"}}
    assert made.name.startswith("60-host-feeds-")
    assert errors(made) == []


def test_a_network_document_aggregates_addresses_and_never_leaves_a_family_open() -> None:
    made = rendered(NETWORK, device("a", "10.77.1.10"), device("b", "10.77.1.11"), site="elevated")[0]
    spec = made.render()["spec"]
    assert isinstance(spec, dict)
    assert spec["ingress"][0]["from"] == [
        {"ipBlock": {"cidr": "10.77.1.10/31"}},
        {"ipBlock": {"cidr": "100::/128"}},
    ]
    assert spec["message"] == "site is elevated: ask the night desk, please"
    assert errors(made) == []
    both = rendered(NETWORK, device("a", "10.77.1.10", "fd77::1"), device("n", "fd77:1::/64"))[0]
    spec = both.render()["spec"]
    assert isinstance(spec, dict)
    found = [peer["ipBlock"]["cidr"] for peer in spec["ingress"][0]["from"]]
    assert found == ["10.77.1.10/32", "fd77::1/128", "fd77:1::/64"]
    assert errors(both) == []


def test_a_label_selects_containers_and_makes_a_document_for_each() -> None:
    text = CONTAINER.replace("app$}", '"room-${device.labels.room}$"}')
    made = rendered(text, device("a", room="1"), device("b", room="2"), device("c", room="1"))
    assert [len(json.dumps(each.render()).split("/srv/feeds/")) - 1 for each in made] == [2, 1]
    assert len({each.name for each in made}) == 2
    assert errors(*made) == []
    with pytest.raises(DocumentRefused, match=r"for device d: .*: the device has no label room"):
        rendered(text, device("d"))
    with pytest.raises(DocumentRefused, match="is no container name"):
        rendered(text, device("d", room="a.b"))  # '.' means any character there


def test_labels_have_defaults_and_the_same_rule_stands_once() -> None:
    text = CONTAINER.replace("/srv/feeds/${device.id}/", "/srv/floors/${device.labels.floor}/")
    text = text.replace(', message: "feed of ${device.id}"', "")
    (made,) = rendered(text, device("a"), device("b"), device("c", floor="2"))
    assert re.findall(r"/srv/floors/\d/", json.dumps(made.render())) == ["/srv/floors/0/", "/srv/floors/2/"]


def test_names_tell_profiles_apart_and_no_device_is_in_them() -> None:
    one, other = template(CONTAINER), compile_template(read(CONTAINER), DECLARED, "maintenance")
    names = {
        piece.full.name
        for each in (one, other)
        for piece in pieces(each, [device("cam-1")], "normal", "t")
        if piece.full is not None
    }
    assert len(names) == 2
    assert not any("cam" in name for name in names)


# --- what is refused, and where -----------------------------------------------------------------------------------

RULE = '{dir: "/srv/feeds/${device.id}/", recursive: true, message: "feed of ${device.id}"}'
REFUSED = [
    (
        CONTAINER,
        "${device.id}/",
        "${device.ip}/",
        "x.yaml:8:15: parameter 'device.ip' is not known; did you mean ${",
    ),
    (CONTAINER, "${device.id}/", "${site.tenent}/", "did you mean ${site.tenant}?"),
    (CONTAINER, "${device.id}/", "${device.labels.wing}/", "declare it in profile.yaml"),
    (CONTAINER, "${device.id}/", "${device.id/", "has a '${' without its end"),
    (CONTAINER, "${device.id}/", "${ device.id }/", "parameter ' device.id ' is not known; did you mean"),
    (CONTAINER, "${device.id}/", "${device.address}/", "an address may stand in a cidr only"),
    (CONTAINER, "${device.id}/", "${site.note}/", "${site.note} is a text: a text is for messages only"),
    (CONTAINER, "60-feeds", '"60-${device.id}"', "x.yaml:3:18: no parameter may stand in 'name'"),
    (CONTAINER, "60-feeds", "feeds", "the name 'feeds' does not say its order; write two digits"),
    (CONTAINER, "60-feeds", "60-Feeds", "does not say its order"),
    (CONTAINER, "action: Block", 'action: "${site.tenant}"', "no parameter may stand in 'action'"),
    (CONTAINER, "action: Block", "action: Allow", "a rule with a device's parameter must block"),
    (CONTAINER, "action: Block", "action: Audit", "a rule with a device's parameter must block"),
    (CONTAINER, "/srv/feeds/$", "/$", "with too many devices all of / would be denied"),
    (CONTAINER, "/srv/feeds/$", "/etc/$", "with too many devices all of /etc/ would be denied"),
    (CONTAINER, "recursive: true", "ownerOnly: true", "cannot have ownerOnly"),
    (CONTAINER, "/srv/feeds/${device.id}/", "/srv/feeds/all/", "stands in the remarks, not in the path"),
    (CONTAINER, "app$}", '"${device.labels.room}"}', "also matches longer names; write ${device.labels.room}$"),
    (CONTAINER, "app$}", '"app$", "${device.id}": x}', "no parameter may stand in 'matchLabels'"),
    (
        CONTAINER,
        "  action: Block",
        '  message: "${device.id}"\n  action: Block',
        "one document is for many devices",
    ),
    (
        CONTAINER,
        "recursive: true,",
        'recursive: true, fromSource: [{path: "/opt/${device.id}"}],',
        "a device's parameter cannot stand in a source: one document is for many devices",
    ),
    (HOST, "${target.name}", "${device.id}", "one document is for many devices"),
    (HOST, "kubearmor.io/hostname:", "kubearmor.io/hostnamereg:", "no parameter may stand in 'matchLabels'"),
    (NETWORK, '"${device.address}"', '"${device.address}/32"', "'${device.address}/32' is no prefix"),
    (NETWORK, '"${device.address}"', '"${device.id}"', "'${device.id}' is no prefix"),
    (
        NETWORK,
        '"8001"',
        '"${site.tenant}"',
        "no parameter may stand in 'port': a port is written into an nft script",
    ),
    (NETWORK, "TCP", '"${site.tenant}"', "no parameter may stand in 'protocol'"),
    (NETWORK, "${site.note}", "${device.id}", "a network policy stands once for all devices"),
    (NETWORK, "ports: [", 'iface: ["${site.tenant}"]\n      ports: [', "no parameter may stand in 'iface'"),
]


@pytest.mark.parametrize(("text", "old", "new", "expected"), REFUSED)
def test_parameters_where_they_may_not_stand(text: str, old: str, new: str, expected: str) -> None:
    assert old in text
    with pytest.raises(TemplateRefused) as caught:
        template(text.replace(old, new, 1))
    assert expected in str(caught.value)
    assert re.match(r"x\.yaml:\d+:\d+: ", str(caught.value))


def test_a_site_profile_is_for_no_device() -> None:
    with pytest.raises(TemplateRefused, match="which is for no device"):
        template(CONTAINER, site=True)


def test_every_mistake_is_told() -> None:
    text = CONTAINER.replace("60-feeds", "feeds").replace("${device.id}", "${devise.id}")
    with pytest.raises(TemplateRefused) as caught:
        template(text)
    assert len(caught.value.mistakes) == 3


VALUES = [
    "../../etc",
    "a/b",
    "..",
    "a..b",
    "",
    " ",
    "a b",
    'a"b',
    "a'b",
    "a\nb",
    "a: b",
    "{a}",
    "[a]",
    "#a",
    "a;b",
    "$x",
]


@pytest.mark.parametrize("value", [*VALUES, "${device.id}", "a}", "*", "?", "\x00", "ä", "x" * 65, "-a", ".a"])
def test_words_that_are_none(value: str) -> None:
    with pytest.raises(ValueError, match=r"is no word|one name, never a path"):
        check_value(Type.WORD, value)
    with pytest.raises(DocumentRefused, match=r"x\.yaml:8:15: for device cam-1"):
        rendered(CONTAINER.replace("${device.id}/", "${device.labels.room}/"), device("cam-1", room=value))


@pytest.mark.parametrize(
    "name", ["device.id", "site.name", "site.", "site.A", "device.labels.", "x", "site.a.b", ""]
)
def test_names_that_cannot_be_declared(name: str) -> None:
    with pytest.raises(ValueError, match=r"known without|must be site"):
        check_declared(name)


def test_a_directory_too_long_for_the_kernel_names_the_device() -> None:
    long = "x" * 60
    with pytest.raises(DocumentRefused, match=f"for device {long}: the directory has 72 bytes"):
        rendered(CONTAINER, device(long))
    (made,) = rendered(
        CONTAINER.replace('dir: "/srv/feeds/${device.id}/", rec', 'dir: "/s/f/${device.id}/", rec'),
        device("x" * 58),
    )
    assert errors(made) == []


def test_a_tag_too_long_is_refused() -> None:
    text = CONTAINER.replace("message:", 'tags: ["room=${device.labels.room}"], message:')
    (made,) = rendered(text, device("a", room="1"))
    assert '"room=1"' in json.dumps(made.render())
    with pytest.raises(DocumentRefused, match="tag 'room="):
        rendered(text, device("a", room="r" * 60))


# --- any values ---------------------------------------------------------------------------------------------------

HOSTILE = st.one_of(
    st.text(max_size=80),
    st.sampled_from(VALUES),
    st.from_regex(r"[A-Za-z0-9._:/${}-]{1,70}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", fullmatch=True),
)
TEMPLATES = [
    CONTAINER,
    CONTAINER.replace("app$}", '"room-${device.labels.room}$"}'),
    CONTAINER.replace("${device.id}/", "${site.tenant}/${device.labels.room}/"),
    HOST,
    NETWORK,
    CONTAINER.replace("matchDirectories", "matchPaths")
    .replace(", recursive: true", "")
    .replace("dir:", "path:")
    .replace("}/", "}.log"),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(TEMPLATES), HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_any_values_are_refused_or_give_a_document_that_validates(
    text: str, name: str, room: str, site: str, target: str
) -> None:
    declared = {**DECLARED, "site.tenant": Parameter(Type.WORD, room)}
    made = compile_template(read(text), declared, "quarantine")
    try:
        found = list(pieces(made, [device(name, "10.77.1.11", room=room)], site, target))
    except DocumentRefused:
        return
    documents = [each for piece in found for each in (piece.full, piece.wide) if each is not None]
    for document in documents:
        assert errors(document) == []
        again = json.loads(json.dumps(document.render()))
        assert "${" not in json.dumps(again)
        for path in re.findall(r'"(?:dir|path)": "([^"]*)"', json.dumps(again)):
            assert re.fullmatch(r"(/[A-Za-z0-9_@+=:-][A-Za-z0-9._@+=:-]*)+/?", path)
            assert path.startswith("/srv/feeds/")


@given(HOSTILE)
def test_a_value_has_no_structure(value: str) -> None:
    for kind in (Type.WORD, Type.NUMBER, Type.TEXT):
        try:
            found = check_value(kind, value)
        except ValueError:
            continue
        assert not set(found) & set("/\"'{}[]$\\\n\r\t\x00#&*!|>%@`?")
        assert kind is Type.TEXT or " " not in found


def test_a_scope_knows_where_it_is() -> None:
    scope = Scope(DECLARED, "lockdown", "edge")
    assert [scope.value(name) for name in ("site.name", "target.name", "site.tenant")] == [
        "lockdown",
        "edge",
        "north",
    ]
