"""The gateway's own network policy at one daemon, in one part or several: what stands, and how it is changed.

At no moment of a change more is allowed than by what stood before or by what is wanted.
What must not live here: making the policy, cutting it, the connection, what is reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from gateway.enforce.kubearmor.lookup import Aside
from gateway.kubearmor.policies import JSON, NetworkPolicy
from gateway.kubearmor.prefixes import Prefix
from gateway.kubearmor.shards import Parts, loosens_only, part_names, split


class Named(NamedTuple):
    """A network policy of which only the name is said: its deletion needs no more (interface 1.4)."""

    name: str

    def render(self) -> JSON:
        """The object as JSON."""
        return {"metadata": {"name": self.name}, "spec": {}}


class Wire(NamedTuple):
    """What the driver lends for one connection; each may raise ``BackendError``.

    ``push`` says whether a policy was taken, ``seen`` which of the names given block something in the host's tables
    (all of them where that cannot be seen).
    """

    push: Callable[[NetworkPolicy], Awaitable[bool]]
    delete: Callable[[Named], Awaitable[None]]
    seen: Callable[[tuple[str, ...]], Awaitable[frozenset[str]]]
    aside: Aside


class NetworkParts:
    """``name`` is that of the policy, and of its first part."""

    def __init__(self, name: str) -> None:
        self.names = part_names(name)
        self._cuts: tuple[Prefix, ...] = ()
        self.standing: tuple[NetworkPolicy, ...] = ()

    def __str__(self) -> str:
        more = len(self.standing) - 1
        return f"{self.names[0]} and its {more} further parts" if more > 0 else self.names[0]

    @property
    def moved_back(self) -> bool:
        """Whether the newest parts were taken after everything else that stands."""
        return len(self.standing) > 1

    def forget(self) -> None:
        """What stands is not known, or not trusted: all of it is laid anew."""
        self.standing = ()

    async def put(self, policy: NetworkPolicy, wire: Wire) -> bool:
        """Make the daemon hold this policy; whether it took all of it. Raises ``BackendError``, and
        ``DocumentRefused`` before anything was sent."""
        parts = await wire.aside(lambda: split(policy, self._cuts))
        before, self.standing = self.standing, ()
        if before and len(parts.policies) == len(before):
            taken = await self._update(before, parts, wire)
        else:
            taken = await self._lay(len(before), parts, wire)
        self._cuts = parts.cuts
        self.standing = taken
        return bool(taken)

    async def _update(
        self, before: tuple[NetworkPolicy, ...], parts: Parts, wire: Wire
    ) -> tuple[NetworkPolicy, ...]:
        """Send the parts that differ, those that take something away first."""
        if len(before) == 1:
            return parts.policies if await wire.push(parts.policies[0]) else ()
        loosen: list[NetworkPolicy] = []
        result = list(before)
        for number, (old, new) in enumerate(zip(before, parts.policies, strict=True)):
            if replace(old, generation=new.generation) == new:
                continue
            result[number] = new
            if await wire.aside(lambda old=old, new=new: loosens_only(old, new)):  # type: ignore[misc]
                loosen.append(new)
            elif not await wire.push(new):
                return ()
        for new in loosen:
            if not await wire.push(new):
                return ()
        return tuple(result)

    async def _lay(self, known: int, parts: Parts, wire: Wire) -> tuple[NetworkPolicy, ...]:
        """Whatever stands: the first part, closed, makes what is behind it powerless; the others are taken anew, in
        order; then the first is opened to them."""
        if not await wire.push(parts.closed):
            return ()
        if len(parts.policies) == 1:
            seen = await wire.seen(self.names[1:])
            last = max((number for number, name in enumerate(self.names, 1) if name in seen), default=known)
            await self._delete(1, max(last, known), wire)
            return parts.policies
        await self._delete(1, len(self.names), wire)
        for part in parts.policies[1:]:
            if not await wire.push(part):
                return ()
        return parts.policies if await wire.push(parts.policies[0]) else ()

    async def _delete(self, first: int, last: int, wire: Wire) -> None:
        for name in self.names[first:last]:
            await wire.delete(Named(name))

    async def remove(self, wire: Wire, *, every: bool) -> None:
        """Delete what stands, or ``every`` part that there may be; the one that blocks last."""
        last = len(self.names) if every else max(1, len(self.standing))
        self.standing = ()
        await self._delete(0, last, wire)
