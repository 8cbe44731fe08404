"""The schemas of the policy book and of one profile.

What lives here: their shape, from the keys of their readers. What must not: names that refer to one another.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config import book, book_levels, book_profiles, book_site
from gateway.config.schema.shapes import (
    DEVICE,
    DURATION,
    NAME,
    PORT,
    PROFILE,
    TEXT,
    WORDS,
    Schema,
    choice,
    either,
    file_of,
    list_of,
    section,
    whole,
)
from gateway.config.values import PASSES_MOST
from gateway.core.policy import KINDS

_STANDINGS = either(PROFILE, section(tuple(book_levels.STANDINGS), dict.fromkeys(book_levels.STANDINGS, PROFILE)))
_MARKS: Mapping[str, Schema] = {
    "max_age": DURATION,
    "recovery_passes": whole(PASSES_MOST),
    "quorum": whole(book_levels.QUORUM_MOST),
}
_MATCH = section(
    book_levels.MATCH_KEYS,
    {"labels": WORDS, "id": TEXT, "prefix": either(TEXT, list_of(TEXT))},
) | {"minProperties": 1}


def book_schema() -> Schema:
    """The policy book."""
    endpoint: Mapping[str, Schema] = {
        "name": NAME,
        "address": TEXT,
        "port": PORT,
        "protocol": choice(book.PROTOCOLS),
    }
    values: Mapping[str, Schema] = {
        "targets": {
            "type": "object",
            "additionalProperties": section(book_site.TARGET_KEYS, {"kinds": list_of(choice(KINDS))}, ("kinds",)),
        },
        "profiles": TEXT,
        "services": list_of(
            section(
                book.SERVICE_KEYS,
                {**endpoint, "path": choice(book.PATHS), "profiles": list_of(PROFILE)},
                ("name", "address", "port"),
            )
        ),
        "corridor": list_of(section(book.CORRIDOR_KEYS, endpoint, ("name", "address", "port"))),
        "always_allowed": list_of(TEXT),
        "node_default": _STANDINGS,
        "suspect": PROFILE,
        "cut_on_hints": list_of(NAME),
        **_levels(),
        "site": list_of(_site()),
        "thresholds": _thresholds(),
    }
    return file_of("The policy book of ragate", section(book.BOOK_KEYS, values))


def _levels() -> dict[str, Schema]:
    """Deployments, classes and single devices."""
    return {
        "deployments": list_of(
            section(
                book_levels.DEPLOYMENT_KEYS,
                {"name": NAME, "match": _MATCH, "services": list_of(NAME), "standings": _STANDINGS},
                ("name", "match"),
            )
        ),
        "classes": list_of(
            section(
                book_levels.CLASS_KEYS,
                {"name": NAME, "match": _MATCH, "standings": _STANDINGS, **_MARKS},
                ("name", "match"),
            )
        ),
        "devices": {
            "type": "object",
            "propertyNames": {"pattern": DEVICE},
            "additionalProperties": either(
                PROFILE, section(book_levels.DEVICE_KEYS, {"standings": _STANDINGS, **_MARKS})
            ),
        },
    }


def _site() -> Schema:
    condition: Schema = {"type": "string", "pattern": r"^ *(<|<=|==|!=|>=|>) *[0-9]{1,9}(\.[0-9]{1,3})? *%? *$"}
    keys = ("class", *book_levels.STANDINGS)
    when = section(keys, {"class": NAME, **dict.fromkeys(book_levels.STANDINGS, condition)})
    return section(book_site.SITE_KEYS, {"name": NAME, "when": when}, ("name",))


def _thresholds() -> Schema:
    alert = section(
        book_site.ALERT_THRESHOLD_KEYS,
        {"severity": whole(book_site.SEVERITY_MOST), "count": whole(book_site.COUNT_MOST), "within": DURATION},
        book_site.ALERT_THRESHOLD_KEYS,
    )
    share: Schema = {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3})?%$"}
    resource = section(
        book_site.RESOURCE_THRESHOLD_KEYS, {"above": share, "for": DURATION}, book_site.RESOURCE_THRESHOLD_KEYS
    )
    return section(
        book_site.THRESHOLD_KEYS,
        {
            "alerts": section(book_site.ALERT_KEYS, dict.fromkeys(book_site.ALERT_KEYS, alert)),
            "resources": section(book_site.RESOURCE_KEYS, dict.fromkeys(book_site.RESOURCE_KEYS, resource)),
        },
    )


def profile_schema() -> Schema:
    """The ``profile.yaml`` of one profile."""
    rate: Schema = {"type": "string", "pattern": "^[0-9]{1,6}/(s|m|h)$"}
    values: Mapping[str, Schema] = {
        "reach": either(choice(("all",)), list_of(NAME)),
        "rate": either(
            {"type": "null"}, section(book_profiles.RATE_KEYS, {"new_connections": rate}, ("new_connections",))
        ),
        "rank": whole(book_profiles.RANK_MOST),
        "site": {"type": "boolean"},
        "parameters": {"type": "object"},
        "documents": list_of(TEXT),
    }
    return file_of("A profile of ragate", section(book_profiles.PROFILE_KEYS, values))
