"""The profiles' documents as files: every mistake with its place, and the shipped profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import check_library, document_targets, load_book, read_library
from gateway.core.errors import ConfigError
from gateway.core.model import Address, Binding, Decision, Device, DeviceId, SourceName, Standing
from gateway.kubearmor.budget import uses
from gateway.kubearmor.documents import ContainerSpec, HostSpec
from gateway.kubearmor.findings import Mode, Severity
from gateway.kubearmor.render import Library, render_all
from gateway.kubearmor.validate import validate

SHIPPED = Path(__file__).parent.parent / "policies"
BOOK = """\
profiles: profiles/
services:
  - {name: feed, address: 10.77.3.2, port: 8001}
node_default: {trusted: admitted, distrusted: quarantine}
"""
PROFILE = """\
rank: 10
reach: []
parameters:
  site.tenant: {type: word, value: north}
  device.labels.room: {type: word, default: hall}
documents: [feeds.yaml]
"""
FEEDS = """\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: 60-feeds}
spec:
  selector: {matchLabels: {kubearmor.io/container.name: app$}}
  file:
    matchDirectories:
      - {dir: "/srv/${site.tenant}/${device.labels.room}/", recursive: true}
  action: Block
"""


def device(name: str, **labels: str) -> Device:
    own = DeviceId(name)
    return Device(own, SourceName("s"), Binding(own, (Address.parse("10.77.1.11"),)), tuple(labels.items()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "profiles" / "quarantine"
    home.mkdir(parents=True)
    (tmp_path / "book.yaml").write_text(BOOK)
    (home / "profile.yaml").write_text(PROFILE)
    (home / "feeds.yaml").write_text(FEEDS)
    return home


def library(folder: Path) -> Library:
    return read_library(load_book(folder.parent.parent / "book.yaml"))


def error_of(folder: Path, *devices: Device) -> str:
    with pytest.raises(ConfigError) as caught:
        check_library(library(folder), {"app": ("container",)}, devices)
    return str(caught.value).replace(f"{folder}/", "")


def test_documents_are_read_with_their_parameters(folder: Path) -> None:
    (template,) = library(folder).devices["quarantine"]
    assert template.used == {"site.tenant", "device.labels.room"}
    made = render_all(
        library(folder),
        {"app": ("container",)},
        [(device("a"), Decision(DeviceId("a"), Standing.DISTRUSTED, "quarantine", None, ()))],
        "normal",
    )
    (text,) = made.texts().values()
    assert '"dir":"/srv/north/hall/"' in text


MISTAKES = [
    (
        "feeds.yaml",
        "tenant}",
        "tenent}",
        "feeds.yaml:8:15: parameter 'site.tenent' is not known; did you mean ${site",
    ),
    (
        "feeds.yaml",
        "dir:",
        "dri:",
        "feeds.yaml:8:10: KA-UNKNOWN-FIELD: 'dri' is not known here; did you mean 'dir'?",
    ),
    ("feeds.yaml", "app$}", "app$, x: why}", "feeds.yaml:5:27: KA-CONTAINER-LABELS: "),
    (
        "feeds.yaml",
        "${site.tenant}/",
        "${site.tenant}",
        "feeds.yaml:8:15: with too many devices all of /srv/ would be",
    ),
    (
        "feeds.yaml",
        "/srv/${",
        "/srv/../${",
        "feeds.yaml:8:15: for device sample: path '/srv/../north/hall/' has '.', ",
    ),
    ("feeds.yaml", "/srv/${site", "/srv/" + "x" * 60 + "/${site", "for device sample: the directory has 77 bytes"),
    ("feeds.yaml", "metadata:", "metadata: {name: 1-x}\nmetadata:", "feeds.yaml:4:1: KA-DUPLICATE-KEY"),
    ("feeds.yaml", "spec:", "spec: [", "feeds.yaml:6:3: is not YAML"),
    ("feeds.yaml", FEEDS, "", "feeds.yaml:1:1: has no KubeArmor document"),
    ("feeds.yaml", FEEDS, FEEDS + "---\n" + FEEDS, "feeds.yaml:13:18: the name stands at feeds.yaml:1:1 already"),
    ("profile.yaml", "site.tenant:", "site.Tenant:", "profile.yaml:4:3: a key: 'site.Tenant' must be site.NAME"),
    (
        "profile.yaml",
        "site.tenant:",
        "device.id:",
        "profile.yaml:4:3: a key: device.id is known without being declared",
    ),
    (
        "profile.yaml",
        "value: north",
        "value: a/b",
        "profile.yaml:4:36: value: 'a/b' has a '/' or '..': a value is one",
    ),
    ("profile.yaml", "value: north", "value: ../b", "a value is one name, never a path"),
    ("profile.yaml", "value: north", "default: north", "profile.yaml:4:38: site.tenant takes value, not default"),
    ("profile.yaml", ", value: north", "", "parameter site.tenant needs 'value'; write value: feeds"),
    ("profile.yaml", "default: hall", "value: hall", "device.labels.room takes default, not value"),
    (
        "profile.yaml",
        "default: hall",
        "defalt: hall",
        "'defalt' is not known in parameter device.labels.room; did you",
    ),
    (
        "profile.yaml",
        "type: word, value",
        "type: path, value",
        "type 'path' is not known; use one of: word, number, text",
    ),
    (
        "profile.yaml",
        "documents:",
        "  site.spare: x\ndocuments:",
        "6:3: no document of the profile uses site.spare; remove",
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "expected"), MISTAKES)
def test_mistakes_have_their_place(folder: Path, file: str, old: str, new: str, expected: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    assert expected in error_of(folder)


def test_every_device_is_tried(folder: Path) -> None:
    said = error_of(folder, device("a", room="1"), device("b", room="../../etc"), device("c", room="x y"))
    assert said.startswith("feeds.yaml:8:15: for device b: ${device.labels.room}: '../../etc' has a '/' or '..'")
    assert "feeds.yaml:8:15: for device c: ${device.labels.room}: 'x y' is no word" in said


def test_a_profile_of_the_site_knows_no_device(folder: Path) -> None:
    home = folder.parent / "site" / "normal"
    home.mkdir(parents=True)
    (home / "profile.yaml").write_text("documents: [feeds.yaml]\n")
    (home / "feeds.yaml").write_text(FEEDS.replace("${site.tenant}/${device.labels.room}", "x/${device.id}"))
    assert "site/normal/feeds.yaml:8:15: ${device.id} in a profile of the site, which is for no device" in error_of(
        folder
    ).replace(f"{folder.parent}/", "")


def test_two_profiles_of_one_name(folder: Path) -> None:
    home = folder.parent / "site" / "quarantine"
    home.mkdir(parents=True)
    (home / "profile.yaml").write_text("documents: []\n")
    with pytest.raises(ConfigError, match="there are two profiles of that name"):
        library(folder)
    (home / "profile.yaml").write_text("site: false\n")
    home.rename(home.parent / "calm")
    with pytest.raises(ConfigError, match="it lies among the profiles of the site"):
        library(folder)


def test_deny_takes_documents_and_nothing_else(folder: Path) -> None:
    home = folder.parent / "deny"
    home.mkdir()
    (home / "profile.yaml").write_text("documents: [a.yaml]\n")
    (home / "a.yaml").write_text(FEEDS.replace("${site.tenant}/${device.labels.room}", "feeds/${device.id}"))
    assert len(library(folder).devices["deny"]) == 1
    for key in ("reach: []", "rank: 5", "rate: {new_connections: 1/s}", "site: true"):
        (home / "profile.yaml").write_text(f"{key}\n")
        with pytest.raises(ConfigError, match="deny is built in"):
            library(folder)


# --- the shipped profiles -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path = tmp_path_factory.mktemp("site") / "book.yaml"
    path.write_text(BOOK.replace("profiles/", str(SHIPPED / "profiles")))
    book = load_book(path)
    assert {"admitted", "probation", "maintenance", "quarantine", "deny", "normal", "elevated", "lockdown"} == set(
        book.profiles
    )
    ranks = [profile.name for profile in book.ordered()]
    assert ranks == ["deny", "quarantine", "maintenance", "probation", "admitted"]
    assert document_targets(book, "edge")["edge"] == ("path_gate", "network", "host", "container")
    return read_library(book)


def test_shipped_profiles_fit_every_device(shipped: Library) -> None:
    devices = (*(device(f"cam-{number}") for number in range(500)), device("x" * 52))
    check_library(shipped, {"app": ("container",)}, devices)
    assert set(shipped.site) == {"normal", "elevated", "lockdown"}


@pytest.mark.parametrize(
    "path", sorted(SHIPPED.glob("profiles/**/*.yaml")), ids=lambda path: "/".join(path.parts[-2:])
)
def test_shipped_documents_are_clean(path: Path) -> None:
    if path.name == "profile.yaml":
        return
    report = validate([(str(path), path.read_bytes().replace(b"${device.id}", b"cam-1"))], Mode.VM)
    assert report.documents
    assert [each for each in report.findings if each.severity is not Severity.NOTE] == []
    assert all(usage.entries < 100 for usage in report.usages)
    for document in report.documents:
        assert dict(document.body.selector.labels)["kubearmor.io/container.name"].endswith("$")  # type: ignore[union-attr]
        assert document.body.severity
        assert document.body.tags
        assert document.body.message


def test_a_tighter_site_profile_blocks_all_that_a_looser_one_does(shipped: Library) -> None:
    def blocked(name: str) -> set[object]:
        return {
            (template.document.body.selector, use.subject, use.value)  # type: ignore[union-attr]
            for template in shipped.site[name]
            if isinstance(template.document.body, (ContainerSpec, HostSpec))
            for use in uses(template.document.body)
        }

    assert blocked("normal") < blocked("elevated") < blocked("lockdown")


def test_lockdown_leaves_attestation_its_sockets(shipped: Library) -> None:
    for template in shipped.site["lockdown"]:
        body = template.document.body
        assert isinstance(body, ContainerSpec)
        assert body.selector is not None
        words = {rule.protocol for rule in body.network.protocols} if body.network is not None else set()
        if "app-server" not in template.slug:
            assert not words & {"tcp", "udp", "stream", "dgram", "all"}
