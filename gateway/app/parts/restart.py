"""What of a new book only a new start can bring.

What lives here: the comparison of two books, in sentences for an operator. What must not: making parts.
"""

from __future__ import annotations

from gateway.app.parts.gates import routes
from gateway.app.parts.kubearmor import scope_of
from gateway.config import Config
from gateway.core.policy import Book
from gateway.kubearmor.names import DocumentRefused


def needs_restart(config: Config, old: Book, new: Book) -> list[str]:
    """What of a new book cannot take effect while the service runs, in sentences; empty when all of it can.

    A restart is safe: what is enforced stays in the kernel with its leases. A relay's connections end with it.
    """
    found = []
    before, after = routes(config, old), routes(config, new)
    if before != after:
        moved = sorted({each.service for each in set(before) ^ set(after)})
        found.append(
            f"the relay listens for {', '.join(moved)}, whose address or port changes: it needs a new start"
        )
    relying = config.relying
    if relying is not None and _place(old, relying.app_server) != _place(new, relying.app_server):
        found.append(
            f"the relying party's port carries DATA to {relying.app_server}, which changes: it needs a new start"
        )
    try:
        keeps = config.target.kubearmor is not None or any(each.nodes for each in config.clusters)
        changes = keeps and scope_of(old) != scope_of(new)
    except DocumentRefused as error:
        return [*found, f"KubeArmor's network policy cannot be made from it: {error}"]
    if changes:
        what = "KubeArmor's network policy is made from services, corridor and always_allowed, which change"
        found.append(f"{what}: it is made anew by a start")
    return found


def _place(book: Book, name: str) -> tuple[str, int, str] | None:
    """Where a service is; None: the book does not have it."""
    found = (service for service in book.services if service.name == name)
    return next(((str(service.address), service.port, service.protocol) for service in found), None)
