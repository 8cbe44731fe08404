"""What a KubeArmor daemon and its nftables tables show of us at this moment, for people and auditors.

What must not live here: sending anything, judging whether it is what was wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address

from gateway.control.ports import Showing
from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.kubearmor.tables import TableReader
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.prefixes import Span
from gateway.kubearmor.readback import CHAIN, FAMILIES, TABLE, Rule, Shown, read_rules

SECONDS = 4.0
"""How long the daemon and its tables may take together: an operator waits for the answer."""

HOST = "kubearmor host policy"


async def show(
    probe: Callable[[], Awaitable[Mapping[str, Shown]]],
    tables: TableReader | None,
    sent: Mapping[str, int],
    addresses: Sequence[Address],
) -> Mapping[str, Showing]:
    """Return what is shown by part: the host policy by the probe, each address by the tables.

    ``sent``: generation by name of the host policy, where one was sent; ``tables`` None: they may not be read here.
    """
    found: dict[str, Showing] = {}
    try:
        async with asyncio.timeout(SECONDS):
            found |= await _probed(probe, sent)
            found |= await _looked(tables, addresses)
    except TimeoutError:
        missing = [HOST, *(_part(address) for address in addresses)]
        found |= {part: Showing(None, f"no answer within {SECONDS:g} s") for part in missing if part not in found}
    return found


async def _probed(
    probe: Callable[[], Awaitable[Mapping[str, Shown]]], sent: Mapping[str, int]
) -> Mapping[str, Showing]:
    try:
        shown = await probe()
    except BackendError as error:
        return {HOST: Showing(None, error.what)}
    if not sent:
        return {HOST: Showing(False, "none has been accepted since the daemon started")}
    ((name, generation),) = sent.items()
    one = shown.get(name)
    if one is None:
        return {HOST: Showing(False, f"the probe does not show {name}")}
    if one.generation != generation:
        return {HOST: Showing(False, f"the probe shows generation {one.generation} of {name}, sent: {generation}")}
    return {HOST: Showing(True, f"the probe shows {name}, generation {generation}")}


async def _looked(tables: TableReader | None, addresses: Sequence[Address]) -> Mapping[str, Showing]:
    if tables is None:
        return {_part(address): Showing(None, "its tables may not be read (tables: read)") for address in addresses}
    found: dict[str, Showing] = {}
    for family, word in FAMILIES.items():
        mine = [address for address in addresses if (len(address.packed) == 4) == (family == 4)]
        if not mine:
            continue
        try:
            listing = await tables.read(family)
            rules = None if listing is None else read_rules(listing, family)
        except (BackendError, DocumentRefused) as error:
            why = error.what if isinstance(error, BackendError) else str(error)
            found |= {_part(address): Showing(None, why) for address in mine}
            continue
        for address in mine:
            found[_part(address)] = _rule(word, rules, address)
    return found


def _part(address: Address) -> str:
    return f"kubearmor rule for {address}"


def _rule(word: str, rules: Sequence[Rule | None] | None, address: Address) -> Showing:
    """The rules of the chain that are about this address and not about everybody."""
    if rules is None:
        return Showing(False, f"there is no table {word} {TABLE}")
    bits = 8 * len(address.packed)
    everybody: Span = (0, (1 << bits) - 1)
    number = int(ip_address(address.packed))
    about = []
    for place, rule in enumerate(rules, 1):
        if rule is None or rule.sources == (everybody,):
            continue
        if any(first <= number <= last for first, last in rule.sources):
            ports = ",".join(f"{lo}" if lo == hi else f"{lo}-{hi}" for lo, hi in rule.ports)
            about.append(f"rule {place}: {rule.verdict} from it to {rule.protocol} {ports}".rstrip())
    if about:
        return Showing(True, f"{word} {TABLE} {CHAIN}, {'; '.join(about)}")
    return Showing(False, f"no rule of {word} {TABLE} {CHAIN} is about it: the default for everybody holds")
