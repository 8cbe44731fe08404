"""What stands in the kernel against what a baseline wants: adopt it, mend its static part, or lay it anew.

Belongs to the guard's thread. What must not live here: admissions and tombstones of single devices, the loop.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.nft.chains import FILLED_SET
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.inspection import Standing, inspect, undisturbed
from gateway.enforce.nft.libnftables import run_commands
from gateway.enforce.nft.messages import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    NFTA_COUNTER_PACKETS,
    NFTA_OBJ_DATA,
    SetName,
    attributes,
    counter_request,
    element,
    element_messages,
    generation_request,
)
from gateway.enforce.nft.netlink import NetlinkError, NetlinkSocket
from gateway.enforce.nft.ruleset import (
    FAMILIES,
    FINGERPRINT_SET,
    TABLE,
    Baseline,
    chains,
    device_sets,
    fingerprint,
    rate_sets,
    render_filled,
    render_fresh,
    render_shut,
    render_static,
    static_sets,
)
from gateway.enforce.nft.sources import FILLED_KEYS, SPOOFED_COUNTER, Anchor, complete, placed, source_sets

#: Addresses added or removed in one transaction, so that the kernel's lock is not held long.
CHUNK = 1_000
#: Dumps of one set in a survey, at the most.
GLIMPSES = 10
#: Tombstones that no device has: their presence tells a table that was lived in from one that was only loaded, and
#: their absence that tombstones were flushed. RFC 7600: IPv4 dummy address; RFC 6666: discard-only prefix.
SENTINELS = (Address.parse("192.0.0.8"), Address.parse("100::"), Address.parse("100::/64"))

_NFT_SET_TIMEOUT = 0x10  # enum nft_set_flags


def sources_of(
    baseline: Baseline, known: Sequence[Address], anchors: Sequence[Anchor]
) -> Mapping[SetName, list[bytes]]:
    """Where known addresses may come from: the keys of each set of sources that the baseline has."""
    lengths = source_sets(FAMILIES, baseline.sources)
    found = placed(complete(known, anchors), baseline.sources) if baseline.sources else {}
    return {SetName(TABLE, name, lengths[name][1]): keys for name, keys in found.items()}


class Layer:
    """Brings the kernel to one baseline."""

    def __init__(
        self, netlink: NetlinkSocket, baseline: Baseline, known: Sequence[Address], anchors: Sequence[Anchor] = ()
    ) -> None:
        self._netlink = netlink
        self._baseline = baseline
        self._known = tuple(known)
        self._sources = sources_of(baseline, known, anchors)
        self._sets = DeviceSets(baseline.profiles)
        self._shut, self._fresh = render_shut(baseline), render_fresh(baseline)
        self._rule_counts = {name: len(rules) for name, rules in chains(baseline).items()}
        for base in ("arrive", "leave"):
            self._rule_counts[base] -= 1  # the hook is no rule

    def settle(self) -> bool:
        """Adopt, mend or lay. True: a table in use was found and its device elements kept."""
        standing = inspect(self._netlink)
        if standing is None:
            run_commands(self._fresh)
            found = False
        elif not self._fits(standing):
            run_commands(render_fresh(self._baseline, self._tombstones()))
            found = False
        else:
            found = self._lived_in()
            if not self._is_whole(standing):
                run_commands(self._mending(standing))
            self._drop_strangers()
        self.fill()
        return found

    def move(self, before: Baseline) -> None:
        """Make the standing table, which is whole as ``before``, this baseline's in one transaction.

        Device elements stay, and so do the buckets of a rate that is the same. Raises ``BackendError``: then
        nothing was changed, or somebody else changed it, which the next probe finds.
        """
        standing = inspect(self._netlink)
        if standing is None or not self._fits(standing):
            raise BackendError("nft", "the table that stands is not the one that was laid", transient=True)
        same = {name: rate for name, rate in before.rates.items() if self._baseline.rates.get(name) == rate}
        run_commands(self._mending(standing, rate_sets(replace(before, rates=same))))
        after = inspect(self._netlink)
        if after is None or not self._is_whole(after):
            raise BackendError("nft", "the static part was changed while it was laid", transient=True)

    def lay(self) -> None:
        """Replace whatever stands by an empty, shut table: default deny first; ``fill`` follows."""
        run_commands(self._shut)
        run_commands(self._fresh)

    def fill(self) -> None:
        """Put in the sentinels, the inventory's addresses and their anchors, in chunks; those that stand stay."""
        for _ in self.filling():
            pass

    def filling(self) -> Iterator[None]:
        """As ``fill``, a chunk at a step. Raises ``BackendError``."""
        self._change(NFT_MSG_NEWSETELEM, self._sets.cut, SENTINELS)
        for start in range(0, len(self._known), CHUNK):
            self._change(NFT_MSG_NEWSETELEM, self._sets.known, self._known[start : start + CHUNK])
            yield
        for where, keys in self._sources.items():
            for start in range(0, len(keys), CHUNK):
                plain = [element(key) for key in keys[start : start + CHUNK]]
                self._netlink.transact(element_messages(NFT_MSG_NEWSETELEM, where, plain))
                yield
        if self._sources:
            run_commands(render_filled())

    def spoofed(self) -> int:
        """Packets dropped for their source since the table was laid. Raises ``NetlinkError``."""
        if not self._sources:
            return 0
        (answer,) = self._netlink.ask([counter_request(TABLE, SPOOFED_COUNTER)])
        if isinstance(answer, int):
            raise NetlinkError(answer, f"looking at the counter {SPOOFED_COUNTER}")
        counted = dict(attributes(dict(attributes(answer))[NFTA_OBJ_DATA]))
        return int.from_bytes(counted[NFTA_COUNTER_PACKETS], "big")

    def rules_are_whole(self, rules: Mapping[str, tuple[bytes, ...]]) -> bool:
        """Whether each chain has as many rules as the baseline gives it, and no other chain has any."""
        expected = {name: count for name, count in self._rule_counts.items() if count}
        return {name: len(found) for name, found in rules.items()} == expected

    def _change(self, kind: int, sets: Mapping[int, SetName], addresses: Sequence[Address]) -> None:
        messages = []
        for prefix, where in sets.items():
            elements = [element(address.packed) for address in addresses if address.prefix == prefix]
            messages += element_messages(kind, where, elements)
        self._netlink.transact(messages)

    def _fits(self, standing: Standing) -> bool:
        """Whether the standing device sets can be kept: there, of the right kind, with room enough."""
        if standing.flags:  # dormant, or owned by another process
            return False
        mark = standing.sets.get(FINGERPRINT_SET)
        structure = fingerprint(self._baseline).partition(" ")[0].encode()
        if mark is None or structure + b" " not in mark.userdata:
            return False
        must = set(device_sets(()))
        for name in device_sets(self._baseline.profiles):
            declared = standing.sets.get(name)
            if declared is None:
                if name in must:
                    return False
                continue  # a new profile's set
            flags = 0 if name in must else _NFT_SET_TIMEOUT
            if declared.flags != flags or declared.size < self._baseline.smallest_set_size:
                return False
        return all(
            declared.flags == 0 and declared.size >= self._baseline.smallest_set_size
            for name, declared in standing.sets.items()
            if name in self._baseline.sources
        )

    def _is_whole(self, standing: Standing) -> bool:
        """Whether the standing static part is exactly the baseline's."""
        statics = static_sets(self._baseline)
        names = {FINGERPRINT_SET, *statics, *device_sets(self._baseline.profiles), *rate_sets(self._baseline)}
        names.update(self._of_sources())
        return (
            fingerprint(self._baseline).encode() in standing.sets[FINGERPRINT_SET].userdata
            and standing.chains == set(self._rule_counts)
            and {name for name in standing.sets if not name.startswith("__")} == names
            and self.rules_are_whole(standing.rules)
            and self.lost_or_strange() == ""
        )

    def lost_or_strange(self) -> str:
        """Name of a static set that has other elements than the baseline's; "" when there is none.

        Raises ``NetlinkError``.
        """
        for name, static in static_sets(self._baseline).items():
            keys = self._keys(SetName(TABLE, name, static.key_length))
            # an interval set may carry a closing zero in front of its first interval
            if {*keys, bytes(static.key_length)} != {*static.keys, bytes(static.key_length)}:
                return name
        return ""

    def _of_sources(self) -> tuple[str, ...]:
        return (FILLED_SET, *self._baseline.sources) if self._baseline.sources else ()

    def unfilled(self) -> bool:
        """Whether it should be said, and is not, that known addresses and their anchors all stand.

        Raises ``NetlinkError``.
        """
        if not self._sources:
            return False
        return set(self._keys(SetName(TABLE, FILLED_SET, 1))) != set(FILLED_KEYS)

    def _mending(self, standing: Standing, buckets: Sequence[str] = ()) -> str:
        """Text that makes the static part right and removes what a baseline before it had; of the sets of buckets
        only ``buckets`` stay."""
        ours = {*static_sets(self._baseline), *device_sets(self._baseline.profiles), *buckets}
        ours.update(self._of_sources())
        obsolete = [
            f"delete chain inet {TABLE} {name}" for name in sorted(standing.chains - set(self._rule_counts))
        ]
        obsolete += [
            f"delete set inet {TABLE} {name}"
            for name in sorted(set(standing.sets) - ours)
            if not name.startswith("__")  # anonymous sets go with their rules
        ]
        sizes = {standing.sets[name].size for name in device_sets(()) if name in standing.sets}
        return render_static(self._baseline, obsolete, size=max(sizes))

    def _lived_in(self) -> bool:
        wanted = [(self._sets.cut[one.prefix], one.packed) for one in SENTINELS]
        return all(found is not None for found in self._netlink.get_elements(wanted))

    def _tombstones(self) -> dict[str, list[str]]:
        """Tombstones of known addresses, to be carried into a new table."""
        wanted = [(self._sets.cut[address.prefix], address.packed) for address in self._known]
        carried: dict[str, list[str]] = {}
        for (where, key), found in zip(wanted, self._netlink.get_elements(wanted), strict=True):
            if found is not None:
                carried.setdefault(where.name, []).append(str(ipaddress.ip_address(key)))
        return carried

    def _drop_strangers(self) -> None:
        """Take addresses that the inventory no longer lists out of the profiles and the known ones.

        What a dump misses stays until its end or the next start, which only keeps more shut.
        """
        for sets in self._sets.of.values():
            for prefix, where in sets.items():
                self._keep_only(where, self._of_prefix(prefix))
        for where in self._own():
            self._keep_only(where, self._wanted(where))

    def keeping(self, dumps: NetlinkSocket) -> Iterator[int]:
        """Take what the inventory does not have out of known addresses and anchors, a piece of a dump at a step;
        yields how many there were. ``dumps`` is used for nothing else. Raises ``NetlinkError``."""
        for where in self._own():
            wanted = self._wanted(where)
            for keys in self._glimpses(dumps, where):
                yield self._drop(where, [key for key in keys if key not in wanted])

    def strangers(self, dumps: NetlinkSocket) -> Iterator[list[Address]]:
        """Addresses with a profile that the inventory does not have, a piece of a dump at a step; some may be told
        twice. ``dumps`` is used for nothing else. Raises ``NetlinkError``."""
        for sets in self._sets.of.values():
            for prefix, where in sets.items():
                known = self._of_prefix(prefix)
                for keys in self._glimpses(dumps, where):
                    yield [Address(key, prefix) for key in keys if key not in known]

    def _glimpses(self, dumps: NetlinkSocket, where: SetName) -> Iterator[list[bytes]]:
        """What dumps of a set show, until nobody changed the ruleset during one of them. On a busy site somebody
        always does: each dump then misses a few others, and after some of them all have been seen."""
        for _ in range(GLIMPSES):
            before = self._generation()  # a dump of a set does not say by itself that the set changed meanwhile
            try:
                whole = yield from dumps.key_pieces(where)
            except NetlinkError as error:
                if error.code != errno.ENOENT:  # a set that is not there shows nothing; the guard lays it again
                    raise
                return
            if whole and self._generation() == before:
                return

    def _generation(self) -> list[bytes | int]:
        return self._netlink.ask([generation_request()])

    def mend(self, elements: Collection[tuple[str, bytes]]) -> Mapping[str, int]:
        """Put right those of these (set, key) that belong to known addresses, anchors and sentinels; how many of
        each set. Raises ``NetlinkError``."""
        mended: dict[str, int] = {}
        sentinels = [one.packed for one in SENTINELS]
        for where in (*self._own(), *self._sets.cut.values()):
            keys = [key for name, key in elements if name == where.name and len(key) == where.key_length]
            wanted = set(sentinels)
            if where in self._sets.cut.values():
                keys = [key for key in keys if key in wanted]
            if not keys:
                continue
            if where not in self._sets.cut.values():
                wanted = self._wanted(where)
            every = element_messages(NFT_MSG_NEWSETELEM, where, [element(key) for key in keys])
            strange = [element(key) for key in keys if key not in wanted]
            if strange:
                every += element_messages(NFT_MSG_DELSETELEM, where, strange)
            self._netlink.transact(every)
            mended[where.name] = len(keys)
        return mended

    def addresses(self, elements: Collection[tuple[str, bytes]]) -> frozenset[Address]:
        """The addresses that these (set, key) are about, where they are tombstones or admissions."""
        places = {
            where.name: prefix
            for sets in (self._sets.cut, *self._sets.of.values())
            for prefix, where in sets.items()
        }
        told = frozenset(Address(key, places[name]) for name, key in elements if name in places)
        return told.difference(SENTINELS)

    def _own(self) -> list[SetName]:
        return [*self._sets.known.values(), *self._sources]

    def _wanted(self, where: SetName) -> set[bytes]:
        for prefix, known in self._sets.known.items():
            if where is known:
                return self._of_prefix(prefix)
        return set(self._sources[where])

    def _of_prefix(self, prefix: int) -> set[bytes]:
        return {address.packed for address in self._known if address.prefix == prefix}

    def _keep_only(self, where: SetName, wanted: set[bytes]) -> int:
        return self._drop(where, [key for key in dict.fromkeys(self._keys(where)) if key not in wanted])

    def _drop(self, where: SetName, strangers: Sequence[bytes]) -> int:
        for start in range(0, len(strangers), CHUNK):
            plain = [element(key) for key in strangers[start : start + CHUNK]]
            # added first: one that has expired meanwhile would spoil the delete
            self._netlink.transact(
                element_messages(NFT_MSG_NEWSETELEM, where, plain)
                + element_messages(NFT_MSG_DELSETELEM, where, plain)
            )
        return len(strangers)

    def _keys(self, where: SetName) -> list[bytes]:
        return undisturbed(lambda: self._netlink.dump_keys(where))
