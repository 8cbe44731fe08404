"""What an operator should look at although the configuration can be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

from gateway.config.keyfiles import UNSAFE
from gateway.config.link_findings import of_link
from gateway.config.values import Config, Network
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
        *_of_bindings(config),
        *_of_keys(config),
        *_of_doors(config),
        *_of_windows(config),
        *of_link(config),
    )


def _of_the_unheard(config: Config) -> Iterator[Finding]:
    """Parts of a book that are judged at load and that no part of the running service acts on yet."""
    book = config.book
    if book.thresholds.suspect is not None:
        what = "it is checked, but this version receives no alerts from KubeArmor: they make no device suspect"
        yield Finding("warning", "thresholds alerts", what, "do not rely on it yet")
    if any(profile.documents for profile in book.profiles.values()):
        what = "they are checked, but this version sends none of them: only the path gate acts on profiles"
        yield Finding("warning", "documents of profiles", what, "do not rely on them yet")


def _of_bindings(config: Config) -> Iterator[Finding]:
    for sentence in AddressBook(config.devices).findings():
        address, _, what = sentence.partition(": ")
        yield Finding("warning", f"address {address}", what, "give each device addresses of its own")
    loose = [device.id for device in config.devices if device.binding.anchor is AnchorKind.NONE]
    if loose:
        what = "nothing guarantees that their source addresses are theirs: any neighbour can borrow an admission"
        yield Finding("warning", _subject(loose), what, "set anchor to l2, l3 or upstream where it is true")
    local = [device.id for device in config.devices if _is_loopback(device)]
    if local and config.target.path_gate == "nft":
        what = "a loopback address never arrives at a routed path gate"
        yield Finding("warning", _subject(local), what, "write the addresses that the gateway sees")


def _is_loopback(device: Device) -> bool:
    return any(ip_address(address.packed).is_loopback for address in device.binding.addresses)


def _of_keys(config: Config) -> Iterator[Finding]:
    for source in config.sources:
        if source.allow_published:
            what = "published keys are allowed: anyone can sign its verdicts"
            yield Finding("warning", f"source {source.name}", what, f"remove {UNSAFE}")
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
        yield Finding("warning", _subject(inside), what, "narrow peers to the verifier's address")


def _may_connect(device: Device, peers: Sequence[Network]) -> bool:
    for address in device.binding.addresses:
        own = ip_address(address.packed)
        for peer in peers:
            within = own in peer or (address.prefix == 64 and address.covers(peer.network_address.packed))
            if within and not own.is_loopback:
                return True
    return False


def _of_windows(config: Config) -> Iterator[Finding]:
    host = ip_address(config.console.listen.host)
    if not host.is_loopback:
        what = f"it listens on {config.console.listen}: whoever reaches that sees who is gated, and why"
        yield Finding("warning", "console", what, "listen on 127.0.0.1 and reach it by a tunnel or a proxy")


def _subject(devices: Iterable[DeviceId]) -> str:
    names = list(devices)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'device' if len(names) == 1 else 'devices'} {', '.join(names[:NAMED])}{more}"
