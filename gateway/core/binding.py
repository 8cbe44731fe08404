"""Who is judged for an address: the inventory's bindings, turned round.

What lives here: owners of an address, devices whose standings bear on one another, conflicts, findings. What must
not: standings themselves (the caller folds them), and anything an alert claims: only the inventory binds.

The rule: where an anchored binding (``l2``, ``l3``, ``upstream``) covers an address, unanchored ones do not count
for it. Several devices that count for one address are judged together: the lowest standing of the living decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId

_NOBODY: frozenset[DeviceId] = frozenset()


class AddressBook:
    """The bindings of one inventory by address. Immutable; built once; look-ups are O(1).

    A /64 binding covers every /128 in it. Building is linear in the number of bound addresses.
    """

    __slots__ = ("_affected", "_conflicts", "_findings", "_has_nets", "_owners", "_sharers", "shared")

    def __init__(self, devices: Iterable[Device]) -> None:
        bindings = [device.binding for device in devices]
        self._conflicts: dict[Address, tuple[DeviceId, ...]] = {}
        self._findings: list[str] = []
        self._sharers: Mapping[DeviceId, frozenset[DeviceId]] = {}
        self._affected: Mapping[DeviceId, frozenset[DeviceId]] = {}
        #: Whether any device's standing bears on another's addresses. Where not, each address has one owner.
        self.shared = False
        # The usual inventory: every address once, none of them a /64. 100,000 of them are to be had quickly.
        alone = {address: (binding.device,) for binding in bindings for address in binding.addresses}
        self._has_nets = any(length == 64 for _, length in alone)
        if not self._has_nets and len(alone) == sum([len(binding.addresses) for binding in bindings]):
            self._owners: Mapping[Address, tuple[DeviceId, ...]] = alone
            return
        self._share(bindings)

    def _share(self, bindings: Sequence[Binding]) -> None:
        """Judge who owns what where addresses meet."""
        owners: dict[Address, tuple[Binding, ...]] = {}
        for binding in bindings:
            for address in dict.fromkeys(binding.addresses):
                others = owners.get(address)
                owners[address] = (binding,) if others is None else (*others, binding)
        inside = _inside(owners)
        single = {binding.device: (binding.device,) for binding in bindings}
        owned: dict[Address, tuple[DeviceId, ...]] = {}
        sharers: dict[DeviceId, set[DeviceId]] = {}
        for address, bound in owners.items():
            covering = (*bound, *_covering(address, owners, inside))
            narrower = inside.get(address, ())
            if len(covering) == 1 and not narrower:
                owned[address] = single[bound[0].device]
                continue
            judged = self._judge(address, covering, narrower)
            owned[address] = judged
            for binding in bound:
                sharers.setdefault(binding.device, set()).update(judged)
        self._owners = owned
        self._sharers = {
            device: frozenset(judged - {device}) for device, judged in sharers.items() if judged - {device}
        }
        self.shared = bool(self._sharers)
        affected: dict[DeviceId, set[DeviceId]] = {}
        for device, others_of in self._sharers.items():
            for other in others_of:
                affected.setdefault(other, set()).add(device)
        self._affected = {device: frozenset(others_of) for device, others_of in affected.items()}

    def owners(self, address: Address) -> tuple[DeviceId, ...]:
        """Return the devices judged for an address, in inventory order within each width; none: unknown address.

        For a single IPv6 address that no device lists, the owners of the /64 around it.
        """
        found = self._owners.get(address)
        if found is not None:
            return found
        if self._has_nets and address.prefix == 128:
            return self._owners.get(_net_of(address), ())
        return ()

    def sharers(self, device: DeviceId) -> frozenset[DeviceId]:
        """Return the other devices whose standing bears on this device's addresses; normally none. O(1)."""
        return self._sharers.get(device, _NOBODY)

    def affected(self, device: DeviceId) -> frozenset[DeviceId]:
        """Return the devices to decide again when this one's standing changes: the reverse of ``sharers``.

        The two differ only where an anchored binding displaces an unanchored one.
        """
        return self._affected.get(device, _NOBODY)

    def conflicts(self) -> Mapping[Address, tuple[DeviceId, ...]]:
        """Return the addresses that several devices are anchored to."""
        return MappingProxyType(self._conflicts)

    def findings(self) -> tuple[str, ...]:
        """Return one sentence for each binding that an operator should look at, shared addresses only."""
        return tuple(self._findings)

    def _judge(
        self, address: Address, covering: tuple[Binding, ...], narrower: tuple[Binding, ...]
    ) -> tuple[DeviceId, ...]:
        """Apply the rule to one shared address and keep what is worth telling."""
        anchored = tuple(binding for binding in covering if _is_anchored(binding))
        # An anchor inside a /64 says nothing about the rest of it, so it displaces nobody there; but the gate
        # admits by the /64 too, so whoever lies inside bears on it.
        within = tuple(binding for binding in narrower if _is_anchored(binding) or not anchored)
        counted = anchored or covering
        judged = _names((*counted, *within))
        displaced = [name for name in _names((*covering, *narrower)) if name not in judged]
        several = _names((*anchored, *(binding for binding in within if _is_anchored(binding))))
        if len(several) > 1:
            self._conflicts[address] = several
            self._findings.append(
                f"{address}: conflict, several devices are anchored to it: {', '.join(several)}; "
                "the lowest standing among them decides"
            )
        elif len(judged) > 1:
            self._findings.append(
                f"{address}: shared by {', '.join(judged)} without an anchor for each; "
                "the lowest standing among them decides"
            )
        if displaced:
            self._findings.append(
                f"{address}: anchored to {', '.join(judged)}; the unanchored binding of {', '.join(displaced)} "
                "does not count"
            )
        return judged


def backs(binding: Binding, claimed: Address | None) -> bool:
    """Whether a hint may name a device by this binding: it is anchored and covers the claimed address, if any."""
    if not _is_anchored(binding):
        return False
    return claimed is None or any(address.covers(claimed.packed) for address in binding.addresses)


def _is_anchored(binding: Binding) -> bool:
    return binding.anchor is not AnchorKind.NONE


def _names(bindings: Iterable[Binding]) -> tuple[DeviceId, ...]:
    return tuple(dict.fromkeys(binding.device for binding in bindings))


def _net_of(address: Address) -> Address:
    return Address(address.packed[:8] + bytes(8), 64)


def _inside(owners: Mapping[Address, tuple[Binding, ...]]) -> dict[Address, tuple[Binding, ...]]:
    """For each bound /64, the bindings of single addresses in it; empty when no /64 is bound."""
    inside: dict[Address, list[Binding]] = {address: [] for address in owners if address.prefix == 64}
    if inside:
        for address, bound in owners.items():
            if address.prefix == 128:
                within = inside.get(_net_of(address))
                if within is not None:
                    within.extend(bound)
    return {address: tuple(bound) for address, bound in inside.items()}


def _covering(
    address: Address, owners: Mapping[Address, tuple[Binding, ...]], nets: Mapping[Address, object]
) -> tuple[Binding, ...]:
    """The bindings of the /64 around a single IPv6 address."""
    if not nets or address.prefix != 128:
        return ()
    return owners.get(_net_of(address), ())
