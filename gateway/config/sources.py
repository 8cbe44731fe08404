"""The verifiers in the main file: ``sources[]``, and the rules of each.

What lives here: sources of format sediment, and what no two sources may share. What must not: the keys of sources
that post their results.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from gateway.config.common import parse_named_endpoint, read_networks, read_seconds
from gateway.config.document import Section, Value
from gateway.config.keyfiles import UNSAFE, read_public_key
from gateway.config.parsing import parse_source_name
from gateway.config.posters import Poster
from gateway.config.posting import read_poster
from gateway.config.values import AGE_LEAST, AGE_MOST, PASSES_MOST, Api, Network, Source
from gateway.core.errors import ConfigError
from gateway.core.lifecycle import Rules
from gateway.core.model import SourceName
from gateway.verdicts import FORMATS

#: Bytes of a name in SEDIMENT's messages: its length is one byte.
VERIFIER_ID = 255


#: Requests to attest in a budget, and its seconds: SEDIMENT's verifier attests some ninety devices a second.
REQUESTS_MOST = 10_000
PER_LEAST, PER_MOST = 1.0, 3_600.0

SOURCE_KEYS = (
    "name",
    "format",
    "public_key",
    "verifier_id",
    "peers",
    "max_age",
    "grace",
    "recovery_passes",
    "feed",
    "api",
    UNSAFE,
)


class Listed(NamedTuple):
    """The sources of both kinds in the order of the file, and ``where`` each stands."""

    sources: tuple[Source, ...] = ()
    posters: tuple[Poster, ...] = ()
    where: Mapping[SourceName, str] = MappingProxyType({})


def read_sources(value: Value, base: Path) -> Listed:
    """The list of sources. Raises ``ConfigError`` for an empty one; mistakes in single sources are remembered."""
    where: dict[SourceName, str] = {}
    taken: dict[Network, str] = {}

    def read(item: Value) -> Source | Poster:
        section = item.section()
        section.name = "a source"
        source = _source(section, base)
        earlier = where.setdefault(source.name, section.where)
        if earlier != section.where:
            raise section.wrong(f"source {source.name} is listed at {earlier} already", "give each its own name")
        if isinstance(source, Source):
            _take_peers(source, section, taken)
        return source

    found = value.gather(read)
    if not found and not value.problems:
        raise value.wrong("no source is listed: no verdict could be believed", "list the verifier")
    sources = tuple(each for each in found if isinstance(each, Source))
    return Listed(sources, tuple(each for each in found if isinstance(each, Poster)), where)


def _take_peers(source: Source, section: Section, taken: dict[Network, str]) -> None:
    """No address may speak for two sources."""
    for peer in source.peers:
        other = taken.setdefault(peer, source.name)
        if other != source.name:
            what = f"peer {peer} belongs to source {other} already: nobody could say whose rules hold"
            raise section.wrong(what, "give each source peers of its own")


def _source(section: Section, base: Path) -> Source | Poster:
    form = FORMATS.get(section.need("format", "sediment").choice(("sediment", *FORMATS)))
    if form is not None:
        return read_poster(section, base, form, _rules(section))
    section.known(*SOURCE_KEYS)
    name = SourceName(section.need("name", "verifier").parsed(parse_source_name))
    unsafe = section.take(UNSAFE, Value.truth, default=False)
    place = section.need("public_key", "verifier.pem")
    key_path = base / place.text()
    try:
        key = read_public_key(key_path, allow_published=unsafe)
    except ConfigError as error:
        raise place.wrong(str(error)) from error
    return Source(
        name,
        key,
        key_path,
        section.need("verifier_id", "RAP_Server").parsed(_verifier_id),
        section.take("peers", read_networks, ()),
        _rules(section),
        allow_published=unsafe,
        feed=section.take("feed", lambda item: item.parsed(parse_named_endpoint), None),
        api=section.take("api", _api, None),
    )


def _api(value: Value) -> Api:
    """``HOST:PORT``, or a section with the budget."""
    if isinstance(value.node, yaml.ScalarNode):
        return Api(value.parsed(parse_named_endpoint))
    section = value.section()
    section.known("address", "requests", "per")
    address = section.need("address", "10.77.2.2:8102").parsed(parse_named_endpoint)
    standard = Api(address)
    return Api(
        address,
        section.take("requests", lambda item: item.whole(1, REQUESTS_MOST), standard.requests),
        section.take("per", lambda item: read_seconds(item, PER_LEAST, PER_MOST), standard.per),
    )


def _rules(section: Section) -> Rules:
    standard = Rules()
    return Rules(
        max_age=section.take("max_age", lambda item: read_seconds(item, AGE_LEAST, AGE_MOST), standard.max_age),
        grace=section.take("grace", lambda item: read_seconds(item, 0.0, AGE_MOST), standard.grace),
        recovery_passes=section.take(
            "recovery_passes", lambda item: item.whole(1, PASSES_MOST), standard.recovery_passes
        ),
    )


def _verifier_id(text: str) -> str:
    if not (text.isprintable() and 1 <= len(text.encode()) <= VERIFIER_ID):
        msg = f"must be 1 to {VERIFIER_ID} bytes of printable text, as the verifier writes it in its alerts"
        raise ValueError(msg)
    return text
