"""What an operator should look at although the configuration can be used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from gateway.config.clusters import cluster_findings
from gateway.config.keyfiles import UNSAFE
from gateway.config.link_findings import of_link, of_served
from gateway.config.values import SOURCE_ALERTS, Config, Network
from gateway.core.binding import AddressBook
from gateway.core.model import AnchorKind, Device, DeviceId
from gateway.core.policy import Finding, check, check_against

#: Devices named in one finding; the rest are counted.
NAMED = 5


def find_findings(config: Config) -> tuple[Finding, ...]:
    """Return every finding about a configuration that could be loaded, the book's own first."""
    return (
        *check(config.book),
        *check_against(config.book, config.devices),
        *_of_the_unheard(config),
        *_of_documents(config),
        *_of_bindings(config),
        *_of_keys(config),
        *_of_doors(config),
        *_of_posters(config),
        *_of_relying(config),
        *_of_hints(config),
        *_of_windows(config),
        *of_link(config),
        *cluster_findings(config.clusters, os.environ),
    )


def _of_the_unheard(config: Config) -> Iterator[Finding]:
    """Thresholds of alerts that nobody hears, or that no number of alerts can reach."""
    thresholds = config.book.thresholds
    wanted = [each for each in (thresholds.suspect, thresholds.alarm) if each is not None]
    own = config.target.kubearmor
    if wanted and not config.remotes and (own is None or "alerts" not in own.streams):
        what = f"target {config.target.name} has no KubeArmor whose alerts are listened to: nothing can reach them"
        mend = "add kubearmor: {} to the target where one runs, with alerts among its streams"
        yield Finding("warning", "thresholds alerts", what, mend)
    for each in wanted:
        most = int(SOURCE_ALERTS * max(each.within, 1.0))
        if each.alerts > most:
            what = f"{each.alerts} alerts within {each.within:g} s: no more than {most} of one source are taken"
            yield Finding("warning", "thresholds alerts", what, "lower count, or lengthen within")


def _of_documents(config: Config) -> Iterator[Finding]:
    book = config.book
    if (
        config.target.kubearmor is None
        and not config.clusters
        and any(profile.documents for profile in book.profiles.values())
    ):
        what = f"they are checked, but target {config.target.name} has no KubeArmor: nothing enforces them"
        yield Finding("warning", "documents of profiles", what, "add kubearmor: {} to the target where one runs")


def _of_bindings(config: Config) -> Iterator[Finding]:
    for sentence in AddressBook(config.devices).findings():
        address, _, what = sentence.partition(": ")
        yield Finding("warning", f"address {address}", what, "give each device addresses of its own")
    loose = [device.id for device in config.devices if device.binding.anchor is AnchorKind.NONE]
    if loose:
        what = "nothing guarantees that their source addresses are theirs: any neighbour can borrow an admission"
        yield Finding("warning", _subject(loose), what, "set anchor to l2, l3 or upstream where it is true")
    yield from _of_anchors(config)
    local = [device.id for device in config.devices if _is_loopback(device)]
    if local and config.target.path_gate == "nft":
        what = "a loopback address never arrives at a routed path gate"
        yield Finding("warning", _subject(local), what, "write the addresses that the gateway sees")


def _of_anchors(config: Config) -> Iterator[Finding]:
    """Anchors that are said and that no path gate can hold anybody to."""
    nowhere = [
        device.id for device in config.devices if device.binding.anchor is AnchorKind.L2 and not device.binding.mac
    ]
    if nowhere:
        what = "their l2 anchor names no interface and no MAC: any neighbour can borrow an admission"
        yield Finding("warning", _subject(nowhere), what, "write interface and mac beside the anchor")
    held = [device.id for device in config.devices if device.binding.interface]
    if held and config.target.path_gate != "nft":
        what = f"their interface and MAC are not looked at by path_gate {config.target.path_gate}"
        yield Finding("warning", _subject(held), what, "use path_gate: nft where neighbours are not trusted")


def _is_loopback(device: Device) -> bool:
    return any(ip_address(address.packed).is_loopback for address in device.binding.addresses)


def _of_keys(config: Config) -> Iterator[Finding]:
    for source in config.sources:
        if source.allow_published:
            what = "published keys are allowed: anyone can sign its verdicts"
            yield Finding("warning", f"source {source.name}", what, f"remove {UNSAFE}")
    if config.sealing is not None and config.plain_keys:
        names = ", ".join(path.name for path in config.plain_keys[:NAMED])
        mend = "ragate devices seal, and restart the service"
        yield Finding("warning", f"key files {names}", "they are plain, though sealing is configured", mend)
    first: dict[bytes, DeviceId] = {}
    shared: list[DeviceId] = []
    for device, key in config.hmac_keys.items():
        if first.setdefault(key, device) != device:
            shared.append(device)
    if shared:
        what = "their HMAC keys are those of other devices too: each can speak for the other"
        yield Finding("warning", _subject(shared), what, "enrol each device with a key of its own")


def _of_doors(config: Config) -> Iterator[Finding]:
    for source in config.sources:
        if not source.peers:
            what = "no peers are listed: its verifier has no connection budget of its own"
            yield Finding("warning", f"source {source.name}", what, "list the verifier's address under peers")
    peers = [*config.door.peers, *(peer for source in config.sources for peer in source.peers)]
    inside = [device.id for device in config.devices if _may_connect(device, peers)]
    if inside:
        what = "they may connect to the door for alerts, which devices must not reach"
        if not config.door.listen:
            what = "alerts that come from their addresses are taken for a verifier's"
        yield Finding("warning", _subject(inside), what, "narrow peers to the verifier's address")


def _of_posters(config: Config) -> Iterator[Finding]:
    spoken_of = {source for device in config.devices for source in device.sources}
    for poster in config.posting.posters:
        if poster.name not in spoken_of:
            what = "no device of the inventory lists it: every verdict of it will be refused"
            yield Finding("warning", f"source {poster.name}", what, "add it to source of its devices")
    for name, door in (("rest", config.posting.rest), ("rpc", config.posting.rpc)):
        if door is not None and not config.posting.posters:
            yield Finding("warning", f"door {name}", "no source posts its results", "list one, or remove the door")
        if door is not None and door.client_ca is None:
            what = "it asks for no client certificates: anybody who reaches it may try signatures"
            yield Finding("warning", f"door {name}", what, "name client_ca")
        if door is not None:
            yield from of_served(f"door {name}", door.files, time.time())


def _of_relying(config: Config) -> Iterator[Finding]:
    relying = config.relying
    if relying is None:
        return
    service = next(service for service in config.book.services if service.name == relying.app_server)
    if service.path == "routed":
        what = f"the book has {service.name} as routed: devices could reach the app server in their own name too"
        yield Finding("warning", "doors.relying", what, "write path: relayed, unless they shall")
    party, forward = relying.relying_party, config.door.forward_to
    if party is None and forward is not None:
        what = f"alerts are passed on to {forward} although we stand in the place of SEDIMENT's relying party"
        yield Finding("warning", "doors.relying", what, "remove forward_to when that party is switched off")
    if party is not None and forward is None:
        what = "alerts that come to the door for alerts are not passed on to SEDIMENT's relying party"
        yield Finding("warning", "doors.relying", what, f"write forward_to: {party} there")
    if party is not None and not ip_address(party.host).is_loopback:
        what = (
            f"SEDIMENT's relying party at {party} is beyond this host: who reaches it there goes around this port"
        )
        yield Finding("warning", "doors.relying", what, "let a packet filter keep its port for this host alone")


def _may_connect(device: Device, peers: Sequence[Network]) -> bool:
    for address in device.binding.addresses:
        own = ip_address(address.packed)
        for peer in peers:
            within = own in peer or (address.prefix == 64 and address.covers(peer.network_address.packed))
            if within and not own.is_loopback:
                return True
    return False


def _of_hints(config: Config) -> Iterator[Finding]:
    for source in config.sources:
        if source.api is None:
            what = "replayable: old evidence sent to its verifier again yields a new, well signed pass"
            mend = "write api: HOST:8102, so that one question after each pass discards what could be replayed"
            yield Finding("warning", f"source {source.name}", what, mend)
    if config.hint_sources:
        loose = [device.id for device in config.devices if device.binding.anchor is AnchorKind.NONE]
        if loose:
            what = f"hints ({', '.join(config.hint_sources)}) are not taken of them: no anchor says who they are"
            yield Finding("warning", _subject(loose), what, "set anchor to l2, l3 or upstream where it is true")


def _of_windows(config: Config) -> Iterator[Finding]:
    host = ip_address(config.console.listen.host)
    if not host.is_loopback:
        what = f"it listens on {config.console.listen}: whoever reaches that sees who is gated, and why"
        yield Finding("warning", "console", what, "listen on 127.0.0.1 and reach it by a tunnel or a proxy")


def _subject(devices: Iterable[DeviceId]) -> str:
    names = list(devices)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'device' if len(names) == 1 else 'devices'} {', '.join(names[:NAMED])}{more}"
