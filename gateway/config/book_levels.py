"""The levels of the book's file: standings and profiles, matches, classes, deployments, single devices."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from gateway.config.document import Section, Value
from gateway.config.inventory import LABEL, LABELS
from gateway.config.parsing import parse_duration, parse_name, parse_network
from gateway.config.values import AGE_LEAST, AGE_MOST, PASSES_MOST, Network
from gateway.core.errors import ConfigError
from gateway.core.model import DENY, DeviceId, Standing, parse_device_id
from gateway.core.policy import ADMITTED, Deployment, DeviceClass, Level, Match, Profile, ProfileName

#: Keys of the sections that live here.
MATCH_KEYS = ("labels", "id", "prefix")
MARK_KEYS = ("max_age", "recovery_passes", "quorum")
CLASS_KEYS = ("name", "match", "standings", *MARK_KEYS)
DEVICE_KEYS = ("standings", *MARK_KEYS)
DEPLOYMENT_KEYS = ("name", "match", "services", "standings")
#: Standings by label, highest first.
STANDINGS: Mapping[str, Standing] = {standing.label: standing for standing in sorted(Standing, reverse=True)}
#: Sources that anybody has.
QUORUM_MOST = 16

_ID_PATTERN = re.compile(r"[A-Za-z0-9._:*?-]{1,128}\Z")


class Levels:
    """Reads what names profiles; ``profiles`` are those that there are, ``places`` grow with what is read."""

    def __init__(self, profiles: Mapping[ProfileName, Profile], places: dict[str, str]) -> None:
        self.places = places
        self.profiles = {name: profile for name, profile in profiles.items() if not profile.site}
        self.suspect = [name for name in self.profiles if name != ADMITTED]

    # --- profiles -------------------------------------------------------------------------------------------------

    def profile(self, value: Value) -> ProfileName:
        """The profile of a trusted device."""
        return value.choice(self.profiles)

    def suspected(self, value: Value) -> ProfileName:
        """That of a suspect one: only trusted admits fully."""
        return value.choice(self.suspect)

    def reaching(self, value: Value) -> tuple[ProfileName, ...]:
        """The profiles that a service lists."""
        found = value.gather(lambda item: item.choice([name for name in self.profiles if name != DENY]))
        if not found:
            mend = "write [admitted], or leave it out"
            raise value.wrong("profiles is empty: nobody would reach the service", mend)
        return found

    def standings(self, value: Value) -> dict[Standing, ProfileName]:
        """A profile for some standings, or one word: that of trusted."""
        if not isinstance(value.node, yaml.MappingNode):
            return {Standing.TRUSTED: self.profile(value)}
        section = value.section()
        section.name = value.name
        section.known(*STANDINGS)
        found: dict[Standing, ProfileName] = {}
        for label, _, item in section.pairs():
            standing = STANDINGS.get(label)
            if standing is not None:
                found[standing] = self._of(standing, item)
        trusted, suspect = found.get(Standing.TRUSTED), found.get(Standing.SUSPECT)
        if trusted and suspect and self.profiles[suspect].rank > self.profiles[trusted].rank:
            what = f"suspect gets {suspect} and trusted only {trusted}: a lower standing would reach more"
            raise section.wrong(what, f"give suspect {trusted} or less")
        return found

    def _of(self, standing: Standing, item: Value) -> ProfileName:
        if standing is Standing.TRUSTED:
            return self.profile(item)
        if standing is Standing.SUSPECT:
            return self.suspected(item)
        name = self.profile(item)
        if self.profiles[name].admits:
            fitting = [each for each, profile in self.profiles.items() if not profile.admits]
            what = f"{standing.label} admits nothing, and {name} reaches services"
            raise item.wrong(what, f"use one of: {', '.join(fitting)}")
        return name

    # --- rules ----------------------------------------------------------------------------------------------------

    def level(self, section: Section) -> Level:
        """What a section with standings and marks says."""
        nothing: dict[Standing, ProfileName] = {}
        no_age: float | None = None
        no_number: int | None = None
        return Level(
            section.take("standings", self.standings, nothing),
            section.take("max_age", _age, no_age),
            section.take("recovery_passes", lambda value: value.whole(1, PASSES_MOST), no_number),
            section.take("quorum", lambda value: value.whole(1, QUORUM_MOST), no_number),
        )

    def device_class(self, item: Value) -> DeviceClass:
        """One class."""
        section = item.section()
        section.name = "a class"
        section.known(*CLASS_KEYS)
        name = section.need("name", "cameras").parsed(parse_name)
        self.places[f"class {name}"] = section.where
        return DeviceClass(name, _match(section), self.level(section))

    def deployment(self, item: Value) -> Deployment:
        """One deployment."""
        section = item.section()
        section.name = "a deployment"
        section.known(*DEPLOYMENT_KEYS)
        name = section.need("name", "cctv").parsed(parse_name)
        self.places[f"deployment {name}"] = section.where
        no_services: tuple[str, ...] = ()
        services = section.take("services", _names, no_services)
        return Deployment(name, _match(section), self.level(section), services)

    def devices(self, section: Section) -> dict[DeviceId, ProfileName | Level]:
        """Single devices: a profile, or a whole level."""
        found: dict[DeviceId, ProfileName | Level] = {}
        for key, place, value in section.pairs():
            try:
                device = place.parsed(parse_device_id)
                found[device] = self._device(value)
                self.places[f"device {key}"] = self.places[f"devices {key}"] = place.where
            except ConfigError as error:
                section.problems.keep(error)
        return found

    def _device(self, value: Value) -> ProfileName | Level:
        if not isinstance(value.node, yaml.MappingNode):
            return self.profile(value)
        section = value.section()
        section.known(*DEVICE_KEYS)
        return self.level(section)


def _names(value: Value) -> tuple[str, ...]:
    return value.gather(lambda item: item.parsed(parse_name))


def _age(value: Value) -> float:
    seconds = value.parsed(parse_duration)
    if not AGE_LEAST <= seconds <= AGE_MOST:
        what = f"{value.name} of {seconds:g} seconds is out of range"
        raise value.wrong(what, f"write {AGE_LEAST:g} to {AGE_MOST:g} seconds")
    return seconds


def _match(section: Section) -> Match:
    value = section.need("match", "{labels: {class: camera}}")
    match = value.section()
    match.known(*MATCH_KEYS)
    no_labels: tuple[tuple[str, str], ...] = ()
    no_prefixes: tuple[Network, ...] = ()
    labels = match.take("labels", _labels, no_labels)
    pattern = match.take("id", lambda item: item.parsed(_parse_pattern), "")
    prefixes = match.take("prefix", _prefixes, no_prefixes)
    if not (labels or pattern or prefixes):
        raise value.wrong("it matches every device: node_default is for that", "give labels, id or prefix")
    return Match(labels, pattern, prefixes)


def _labels(value: Value) -> tuple[tuple[str, str], ...]:
    pairs = tuple((place.parsed(parse_name), item.text()) for _, place, item in value.section().pairs())
    if len(pairs) > LABELS or any(len(word) > LABEL for _, word in pairs):
        raise value.wrong(
            "no device has so many or such long labels", f"write at most {LABELS} of {LABEL} characters"
        )
    return pairs


def _parse_pattern(text: str) -> str:
    if not _ID_PATTERN.match(text):
        msg = f"{text[:64]!r} matches no device id; write its characters, * for any of them and ? for one"
        raise ValueError(msg)
    return text


def _prefixes(value: Value) -> tuple[Network, ...]:
    if isinstance(value.node, yaml.SequenceNode):
        return value.gather(lambda item: item.parsed(parse_network))
    return (value.parsed(parse_network),)
