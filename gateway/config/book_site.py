"""The site in the book's file: its profiles with their conditions, thresholds, and kinds of documents by target."""

from __future__ import annotations

import re

from gateway.config.book_levels import STANDINGS
from gateway.config.document import Section, Value
from gateway.config.parsing import parse_duration, parse_name
from gateway.core.policy import (
    KINDS,
    OPERATORS,
    AlertThreshold,
    Condition,
    Kind,
    Operator,
    ResourceThreshold,
    SiteProfile,
    Thresholds,
)

#: Keys of the sections that live here.
SITE_KEYS = ("name", "when")
TARGET_KEYS = ("kinds",)
THRESHOLD_KEYS = ("alerts", "resources")
ALERT_KEYS = ("suspect", "alarm")
ALERT_THRESHOLD_KEYS = ("severity", "count", "within")
RESOURCE_KEYS = ("cpu", "memory")
RESOURCE_THRESHOLD_KEYS = ("above", "for")
#: KubeArmor's severities are 1 to 10.
SEVERITY_MOST = 10
#: Alerts that a threshold may count; each is remembered as one moment.
COUNT_MOST = 10_000
#: Seconds over which alerts or a resource are watched: a day.
WINDOW_MOST = 86_400.0

_CONDITION = re.compile(rf"({'|'.join(OPERATORS)}) *([0-9]{{1,9}}(?:\.[0-9]{{1,3}})?) *(%?)\Z")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%\Z")


def read_site(item: Value, places: dict[str, str]) -> SiteProfile:
    """One site profile and its conditions."""
    section = item.section()
    section.name = "a site profile"
    section.known(*SITE_KEYS)
    name = section.need("name", "lockdown").parsed(parse_name)
    places[f"site {name}"] = section.where
    none: tuple[Condition, ...] = ()
    return SiteProfile(name, section.take("when", _when, none))


def _when(value: Value) -> tuple[Condition, ...]:
    section = value.section()
    section.known("class", *STANDINGS)
    narrowed = section.get("class")
    device_class = "" if narrowed is None else narrowed.parsed(parse_name)
    found: list[Condition] = []
    for label, _, item in section.pairs():
        standing = STANDINGS.get(label)
        if standing is not None:
            operator, number, share = item.parsed(_parse_condition)
            found.append(Condition(standing, operator, number, share, device_class))
    if not found:
        raise value.wrong("when without a condition", "write {distrusted: '>= 3'}, or leave when out")
    return tuple(found)


def _parse_condition(text: str) -> tuple[Operator, float, bool]:
    match = _CONDITION.match(text.strip())
    number = -1.0 if match is None else float(match[2])
    if match is None or (match[3] and number > 100) or (not match[3] and not number.is_integer()):
        msg = (
            f"{text[:64]!r} is no condition; write a comparison with a number or a share, such as '>= 3' or '< 50%'"
        )
        raise ValueError(msg)
    operator = next(each for each in OPERATORS if each == match[1])
    return operator, number, bool(match[3])


def read_targets(section: Section, places: dict[str, str]) -> dict[str, tuple[Kind, ...]]:
    """The kinds of documents that each target takes, by the target's name."""
    found: dict[str, tuple[Kind, ...]] = {}
    for _, place, value in section.pairs():
        name = place.parsed(parse_name)
        target = value.section()
        target.known(*TARGET_KEYS)
        found[name] = target.need("kinds", "[path_gate, network]").gather(lambda item: item.choice(KINDS))
        places[f"target {name}"] = place.where
    return found


def read_thresholds(section: Section) -> Thresholds:
    """When alerts and resources count."""
    section.known(*THRESHOLD_KEYS)
    none: Thresholds = Thresholds()
    suspect, alarm = section.take("alerts", _alerts, (none.suspect, none.alarm))
    cpu, memory = section.take("resources", _resources, (none.cpu, none.memory))
    return Thresholds(suspect, cpu, memory, alarm)


def _alerts(value: Value) -> tuple[AlertThreshold | None, AlertThreshold | None]:
    alerts = value.section()
    alerts.known(*ALERT_KEYS)
    none: AlertThreshold | None = None
    return alerts.take("suspect", _alert, none), alerts.take("alarm", _alert, none)


def _alert(value: Value) -> AlertThreshold:
    section = value.section()
    section.known(*ALERT_THRESHOLD_KEYS)
    return AlertThreshold(
        section.need("severity", "8").whole(1, SEVERITY_MOST),
        section.need("count", "3").whole(1, COUNT_MOST),
        _window(section.need("within", "60s")),
    )


def _resources(value: Value) -> tuple[ResourceThreshold | None, ResourceThreshold | None]:
    section = value.section()
    section.known(*RESOURCE_KEYS)
    none: ResourceThreshold | None = None
    return section.take("cpu", _resource, none), section.take("memory", _resource, none)


def _resource(value: Value) -> ResourceThreshold:
    section = value.section()
    section.known(*RESOURCE_THRESHOLD_KEYS)
    return ResourceThreshold(section.need("above", "90%").parsed(_parse_share), _window(section.need("for", "2m")))


def _parse_share(text: str) -> float:
    match = _SHARE.match(text)
    if match is None or not 0 < float(match[1]) < 100:
        msg = f"{text[:64]!r} is no share; write a percentage between 0% and 100%, such as 90%"
        raise ValueError(msg)
    return float(match[1]) / 100


def _window(value: Value) -> float:
    seconds = value.parsed(parse_duration)
    if not 0 < seconds <= WINDOW_MOST:
        raise value.wrong(
            f"{value.name} of {seconds:g} seconds is out of range", f"write up to {WINDOW_MOST:g} seconds"
        )
    return seconds
