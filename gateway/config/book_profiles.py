"""The profiles folder: one folder for each profile, with a ``profile.yaml`` and the documents that it names.

What lives here: reading ``profile.yaml``. What must not: reading documents, which the renderer does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, read_text
from gateway.config.parsing import parse_name
from gateway.core.errors import ConfigError
from gateway.core.model import DENY
from gateway.core.policy import BUILT_IN, Profile, ProfileName, Rate, Reach

#: The folder of the site's profiles; elsewhere a profile says ``site: true``.
SITE_FOLDER = "site"
#: Keys of ``profile.yaml``.
PROFILE_KEYS = ("reach", "rate", "rank", "site", "parameters", "documents")
RATE_KEYS = ("new_connections",)
#: Ranks: room between any two of a site's profiles.
RANK_MOST = 1_000
#: Folders: each profile that admits is six sets of the path gate.
PROFILES_MOST = 64
#: Documents of one profile.
DOCUMENTS_MOST = 256

_RATE = re.compile(r"([0-9]{1,6})/(s|m|h)\Z")
_PER = {"s": 1.0, "m": 60.0, "h": 3_600.0}
_DOCUMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.ya?ml\Z")
_INT, _FLOAT, _BOOL = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool"))


def read_profiles(folder: Path, problems: Problems, places: dict[str, str]) -> dict[ProfileName, Profile]:
    """Return the profiles of a folder by name. Raises ``ConfigError``; mistakes in single ones are remembered."""
    homes = _homes(folder)
    of_site = [home for home in homes if home.name == SITE_FOLDER]
    homes = [home for home in homes if home.name != SITE_FOLDER] + [
        each for home in of_site for each in _homes(home)
    ]
    if len(homes) > PROFILES_MOST:
        raise ConfigError(str(folder), f"has more than {PROFILES_MOST} profiles", "is this the right folder?")
    found: dict[ProfileName, Profile] = {}
    for home in homes:
        try:
            if home.name in found:
                raise ConfigError(str(home), "there are two profiles of that name", "rename one of the two folders")
            found[home.name] = _read(home, problems, site=home.parent != folder)
            places[f"profile {home.name}"] = f"{home / 'profile.yaml'}:1:1"
        except ConfigError as error:
            problems.keep(error)
    return found


def _homes(folder: Path) -> list[Path]:
    try:
        return sorted(home for home in folder.iterdir() if home.is_dir() and not home.name.startswith("."))
    except OSError as error:
        raise ConfigError(str(folder), f"cannot be read: {error.strerror}", "check profiles in the book") from error


def _read(home: Path, problems: Problems, *, site: bool) -> Profile:
    path = home / "profile.yaml"
    top = compose(read_text(path, SMALL_FILE), path, problems)
    top.name = f"profile {home.name}"
    top.known(*PROFILE_KEYS)
    if not top.take("site", Value.truth, default=site) and site:
        raise ConfigError(str(path), "it lies among the profiles of the site", "move the folder up, or site: true")
    site = top.take("site", Value.truth, default=site)
    if home.name == DENY and any(top.get(key) is not None for key in ("reach", "rate", "rank", "site")):
        what = "deny is built in and reaches nothing: only parameters and documents may stand here"
        raise ConfigError(str(path), what, "remove reach, rate, rank and site, or name the folder quarantine, say")
    if site:
        for key in ("reach", "rate", "rank"):
            value = top.get(key)
            if value is not None:
                raise value.wrong(f"a site profile has no {key}: no device has it", "remove it, or site: true")
    no_parameters: Mapping[str, object] = {}
    try:
        return Profile(
            home.name,
            0 if site else _rank(top, home.name),
            () if site or home.name == DENY else top.take("reach", _reach, None),
            top.take("rate", _rate, None),
            top.take("documents", lambda value: _documents(value, home), ()),
            top.take("parameters", _parameters, no_parameters),
            site,
        )
    except ValueError as error:
        raise ConfigError(str(path), str(error), "rename the folder") from error


def _rank(top: Section, name: str) -> int:
    if name in BUILT_IN and top.get("rank") is None:
        return BUILT_IN[name].rank
    return top.need("rank", "60").whole(1, RANK_MOST)


def _reach(value: Value) -> Reach:
    if isinstance(value.node, yaml.SequenceNode):
        return value.gather(lambda item: item.parsed(parse_name))
    value.choice(("all",))
    return "all"


def _rate(value: Value) -> Rate:
    section = value.section()
    section.known(*RATE_KEYS)
    return section.need("new_connections", "10/s").parsed(_parse_rate)


def _parse_rate(text: str) -> Rate:
    match = _RATE.match(text)
    if match is None or not int(match[1]):
        msg = f"{text[:64]!r} is no rate; write a number from 1 on and /s, /m or /h, such as 10/s"
        raise ValueError(msg)
    return Rate(int(match[1]), _PER[match[2]])


def _documents(value: Value, home: Path) -> tuple[str, ...]:
    def read(item: Value) -> str:
        name = item.text()
        if not _DOCUMENT.match(name) or ".." in name:
            raise item.wrong(
                f"{name[:64]!r} is no name of a document", "name a .yaml file of the profile's own folder"
            )
        if not (home / name).is_file():
            raise item.wrong(f"{home / name} is no file", "correct the name, or add the file")
        return str(home / name)

    found = value.gather(read)
    if len(found) > DOCUMENTS_MOST or len(set(found)) != len(found):
        raise value.wrong(
            "a document is listed twice, or there are too many", f"list at most {DOCUMENTS_MOST}, once"
        )
    return found


def _parameters(value: Value) -> Mapping[str, object]:
    return {key: _plain(item) for key, _, item in value.section().pairs()}


def _plain(value: Value) -> object:
    """A value with YAML's own type: text, whole number, number, truth, list or mapping."""
    if isinstance(value.node, yaml.SequenceNode):
        return tuple(_plain(item) for item in value.items())
    if isinstance(value.node, yaml.MappingNode):
        return {key: _plain(item) for key, _, item in value.section().pairs()}
    return None if value.is_null else _scalar(value)


def _scalar(value: Value) -> object:
    text = value.text()
    if value.node.tag == _BOOL:
        return value.truth()
    try:
        if value.node.tag == _INT:
            return int(text)
        return float(text) if value.node.tag == _FLOAT else text
    except ValueError as error:
        raise value.wrong(f"{text[:64]!r} is no number that everybody reads alike", "write it in quotes") from error
