"""Who is believed: what judges the verdicts of each source.

What lives here: rules, authenticators and openers by source. What must not: the doors that results come by.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.app import hinting
from gateway.config import Config
from gateway.control.ports import Authenticator, Opener
from gateway.core.lifecycle import Rules
from gateway.core.model import DeviceId, SourceName
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.verdicts import FORMATS, VerdictAuthenticator


def rules(config: Config) -> Mapping[SourceName, Rules]:
    """How each source's verdicts are weighed."""
    return {
        **{source.name: source.rules for source in config.sources},
        **{poster.name: poster.rules for poster in config.posting.posters},
    }


def authenticators(config: Config) -> Mapping[SourceName, Authenticator]:
    """One authenticator per source, with the HMAC keys of the devices that it speaks for."""
    made: dict[SourceName, Authenticator] = {}
    for source in config.sources:
        keys = {
            device.id: config.hmac_keys[device.id] for device in config.devices if source.name in device.sources
        }
        made[source.name] = SedimentAuthenticator(verifiers(config)[source.name], keys)
    return {**made, **hinting.authenticators(config)}


def verifiers(config: Config) -> Mapping[SourceName, SedimentSource]:
    """The SEDIMENT verifiers by their names as sources."""
    return {
        source.name: SedimentSource(source.name, source.public_key, source.verifier_id.encode())
        for source in config.sources
    }


def openers(config: Config) -> Mapping[SourceName, Opener]:
    """One authenticator per source that posts its results."""
    return {
        poster.name: VerdictAuthenticator(poster.verdicts, FORMATS[poster.format])
        for poster in config.posting.posters
    }


def speaking(config: Config) -> Mapping[DeviceId, SedimentSource]:
    """The SEDIMENT verifier of each device that has one: the first that the inventory lists."""
    described = verifiers(config)
    return {
        device.id: described[source]
        for device in config.devices
        for source in [next((each for each in device.sources if each in described), None)]
        if source is not None
    }
