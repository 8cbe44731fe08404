"""The documents that stand by a book while devices are in given states: the very rendering of the running service.

What must not live here: comparing, printing, sending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gateway.config.ground import Ground
from gateway.config.templates import document_targets, namespaces_of
from gateway.core.binding import AddressBook
from gateway.core.errors import ConfigError
from gateway.core.model import Device, DeviceId, Standing
from gateway.core.policy import NORMAL, Book, DeviceClass, Override, decide_site, matches
from gateway.core.rehearsal import Budget, State, profiles_of
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.render import Library, Renderer, Rendering

Words = tuple[Mapping[DeviceId, Override], float]
"""The overrides in force, and the UNIX time at which they are."""


class Stands(NamedTuple):
    """What stands by one book, and the profile of the site under which it does."""

    site: str
    rendering: Rendering

    def texts(self) -> dict[str, str]:
        """Each document as JSON, by a name for people."""
        return {f"document {key}": text for key, text in self.rendering.texts().items()}


def standing_documents(
    ground: Ground,
    book: Book,
    states: Mapping[DeviceId, State],
    addresses: AddressBook,
    library: Library,
    words: Words,
) -> Stands:
    """Return what stands by a compiled book and operators' ``words``.

    Raises ``ConfigError`` for a document that cannot be made.
    """
    site = _site(ground, book, states)
    renderer = Renderer(
        library, document_targets(book, ground.settings.target.name, namespaces_of(ground.settings.clusters))
    )
    if renderer.documented:
        for device, profile in profiles_of(ground.devices, states, book, addresses, *words):
            if profile in renderer.documented:
                renderer.move(device, profile)
    try:
        return Stands(site, renderer.render(site))
    except DocumentRefused as error:
        raise ConfigError("profiles", str(error), "correct the document") from error


def budgets_of(before: Stands, after: Stands) -> list[Budget]:
    """Return how full each table is by the one and by the other: of each container, and of each host."""
    was, would = dict(_usages(before)), dict(_usages(after))
    return [
        Budget(name, was.get(name, (0, 0))[0], would.get(name, (0, 0))[0], (would.get(name) or was[name])[1])
        for name in sorted({**was, **would})
    ]


def _usages(stands: Stands) -> Iterator[tuple[str, tuple[int, int]]]:
    for target, usages in stands.rendering.usages.items():
        for usage in usages:
            yield f"{target}: {usage.subject}", (usage.entries, usage.limit)


def _site(ground: Ground, book: Book, states: Mapping[DeviceId, State]) -> str:
    """The site's profile by the counts of standings."""
    if not book.site:
        return NORMAL
    asked = {condition.device_class for rule in book.site for condition in rule.when if condition.device_class}
    classes = [each for each in book.classes if each.name in asked]
    counts = _counts(ground.devices, states)
    by_class = {each.name: _counts(_members(ground.devices, each), states) for each in classes}
    return decide_site(counts, len(ground.devices), by_class, book).name


def _members(devices: tuple[Device, ...], kind: DeviceClass) -> tuple[Device, ...]:
    return tuple(device for device in devices if matches(kind.match, device))


def _counts(devices: tuple[Device, ...], states: Mapping[DeviceId, State]) -> dict[str, int]:
    counts = dict.fromkeys(Standing, 0)
    for device in devices:
        state = states.get(device.id)
        counts[Standing.UNKNOWN if state is None else state.standing] += 1
    return {standing.label: number for standing, number in counts.items()}
