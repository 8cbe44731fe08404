"""Whether the rules of network policies stand in KubeArmor's nftables tables.

What must not live here: what follows from it, sending anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from gateway.core.errors import BackendError
from gateway.enforce.kubearmor.tables import TableReader
from gateway.kubearmor.documents import NetworkDocument
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.policies import NetworkPolicy
from gateway.kubearmor.readback import FAMILIES, Rule, as_policy, expected_rules, find, read_rules

T = TypeVar("T")


class Aside(Protocol):
    """Does pure work beside the loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class RuleLookup:
    """Looks into the tables of both families; ``aside`` is where 100,000 addresses are compared."""

    def __init__(self, tables: TableReader, aside: Aside) -> None:
        self._tables = tables
        self._aside = aside

    async def deviation(self, *parts: NetworkPolicy, absent: Sequence[str] = ()) -> str:
        """Return "" when both tables hold the rules of all these policies, in this order, and the names that are to
        be ``absent`` block nothing; else what is wrong. Raises ``BackendError`` and ``DocumentRefused`` when that
        cannot be told."""
        for family, word in FAMILIES.items():
            listing = await self._tables.read(family)
            if listing is None:
                return f"table {word} kubearmor is gone"
            missing = await self._aside(_missing(parts, listing, family, absent))
            if missing:
                return (
                    f"table {word} kubearmor does not hold the rules of {missing}, although KubeArmor accepted"
                    " them: another policy may have frozen its rule set, or somebody changed the table"
                )
        return ""

    async def blocking(self, names: tuple[str, ...]) -> frozenset[str]:
        """Return which of the names block something in the IPv4 table: Allow rules carry no name. Raises
        ``BackendError``."""
        listing = await self._tables.read(4)
        try:
            rules = [] if listing is None else await self._aside(lambda: read_rules(listing, 4))
        except DocumentRefused:
            return frozenset(names)
        return frozenset(name for name in names if _blocks(name, rules))

    async def documents(self, sent: Sequence[tuple[NetworkDocument, int]]) -> Mapping[str, bool | None]:
        """Return for each document, given with its generation, whether its rules stand; None: it cannot be told."""
        found: dict[str, bool | None] = {}
        policies: list[NetworkPolicy] = []
        for document, generation in sent:
            policy = await self._aside(lambda each=document, number=generation: as_policy(each, number))  # type: ignore[misc]
            if policy is None:
                found[document.name] = None
            else:
                policies.append(policy)
        for policy in policies:
            try:
                found[policy.name] = not await self.deviation(policy)
            except (BackendError, DocumentRefused):
                found[policy.name] = None
        return found


def _blocks(name: str, rules: Sequence[Rule | None]) -> bool:
    return any(rule is not None and rule.prefix.startswith(f"{name} ") for rule in rules)


def _missing(
    parts: Sequence[NetworkPolicy], listing: bytes, family: int, absent: Sequence[str]
) -> Callable[[], str]:
    """The first of the policies whose rules are not where they must be, or of the names that block; "" none."""

    def look() -> str:
        rules = read_rules(listing, family)
        at = 0
        for part in parts:
            found = find(part, rules[at:], family)
            if found is None:
                return part.name
            at += found + sum(map(len, expected_rules(part, family)))
        return next((name for name in absent if _blocks(name, rules)), "")

    return look
