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
from gateway.kubearmor.readback import FAMILIES, as_policy, find, read_rules

T = TypeVar("T")


class Aside(Protocol):
    """Does pure work beside the loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class RuleLookup:
    """Looks into the tables of both families; ``aside`` is where 100,000 addresses are compared."""

    def __init__(self, tables: TableReader, aside: Aside) -> None:
        self._tables = tables
        self._aside = aside

    async def deviation(self, policy: NetworkPolicy) -> str:
        """Return "" when both tables hold a policy's rules, else what is wrong. Raises ``BackendError`` and
        ``DocumentRefused`` when that cannot be told."""
        for family, word in FAMILIES.items():
            listing = await self._tables.read(family)
            if listing is None:
                return f"table {word} kubearmor is gone"
            if not await self._aside(_finder(policy, listing, family)):
                return (
                    f"table {word} kubearmor does not hold the rules of {policy.name}, although KubeArmor accepted"
                    " them: another policy may have frozen its rule set, or somebody changed the table"
                )
        return ""

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


def _finder(policy: NetworkPolicy, listing: bytes, family: int) -> Callable[[], bool]:
    return lambda: find(policy, read_rules(listing, family), family) is not None
