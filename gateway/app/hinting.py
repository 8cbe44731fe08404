"""The parts for hints and inquiries: made from the configuration, and run beside the doors for verdicts.

None of them is needed for the service to be ready: a hint that does not arrive lowers nobody, and a verifier that
cannot be asked is shown as replayable.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway.config import HOOK, Config
from gateway.console.asking import Asking
from gateway.console.facts import OTHER
from gateway.console.metrics import Metrics
from gateway.console.operator import SocketFile
from gateway.control.admit import Admit
from gateway.control.claims import Claims
from gateway.control.devices import Devices
from gateway.control.inquiries import Inquirer, Inquiries, InquiryLimits
from gateway.control.ports import Authenticator, Clock, Health, Notice, Step
from gateway.core.model import Binding, Device, DeviceId, SourceName
from gateway.intake.feed import FeedSettings, FeedSubscriber, VerifierApi
from gateway.intake.hook.door import KIND, HookDoor, HookSettings
from gateway.sediment.hints import FeedHints, HookHints


def authenticators(config: Config) -> Mapping[SourceName, Authenticator]:
    """What judges hints: one for the hook, one for each feed."""
    made: dict[SourceName, Authenticator] = {}
    if config.hook is not None:
        made[HOOK] = HookHints(HOOK, _bindings(config.devices))
    for source in config.sources:
        if source.feed is not None:
            own = _bindings(device for device in config.devices if source.name in device.sources)
            made[source.hints] = FeedHints(source.hints, source.name, own)
    return made


def _bindings(devices: Iterable[Device]) -> Mapping[DeviceId, Binding]:
    return {device.id: device.binding for device in devices}


def inquiries(config: Config, clock: Clock) -> Inquiries:
    """What can be asked of the verifiers that have an API."""
    made = []
    for source in config.sources:
        if source.api is not None:
            api = VerifierApi(source.name, source.api.address.host, source.api.address.port)
            # Issued-at has whole seconds: one more than the skew makes sure.
            settle = source.rules.skew + 1.0
            limits = InquiryLimits(requests=source.api.requests, per=source.api.per, settle=settle)
            made.append(Inquirer(source.name, api, clock, limits))
    return Inquiries(made, clock)


class Hinting:
    """Hook, feeds and inquiries of one service. Raises ``ConfigError`` when the hook's socket cannot be opened."""

    def __init__(self, config: Config, asked: Inquiries, admit: Admit, devices: Devices, clock: Clock) -> None:
        self.inquiries = asked
        self.claims = Claims(config.devices)
        self._config = config
        self._sediment = tuple(source.name for source in config.sources)
        self._admit = admit
        self._devices = devices
        self._clock = clock
        self._feeds = [
            FeedSubscriber(admit, clock, FeedSettings(source.hints, source.feed.host, source.feed.port))
            for source in config.sources
            if source.feed is not None
        ]
        self._file: SocketFile | None = None
        self._hook: HookDoor | None = None
        if config.hook is not None:
            self._file = SocketFile(config.hook.socket, config.hook.group, "doors.hook", KIND)
            settings = HookSettings(HOOK, config.hook.uids)
            self._hook = HookDoor(self._file.open(), admit, clock, settings)
        devices.solicited = asked.solicited
        devices.replayable = self.replayable
        if self._sediment:
            devices.telling.on_stepped = self._stepped

    def _stepped(self, steps: Sequence[Step]) -> None:
        for _, verdict, _ in steps:
            if verdict is not None and verdict.source in self._sediment:  # nobody else's devices claim an address
                self.claims.judged(verdict)

    def replayable(self, device: Device, sources: Iterable[SourceName]) -> Sequence[SourceName]:
        """The sources of a device at whose verifier its old evidence can be replayed."""
        return tuple(source for source in sources if self._is_replayable(device.id, source))

    def _is_replayable(self, device: DeviceId, source: SourceName) -> bool:
        if source not in self._sediment:
            return False  # no evidence of ours to replay: another format's nonce is its own matter
        inquirer = self.inquiries.get(source)
        return inquirer is None or not inquirer.is_confirmed(device)

    def runs(self) -> Iterator[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """Everything that works until cancelled, by name."""
        if self._hook is not None:
            yield "hook", self._hook.run
        for feed in self._feeds:
            yield f"feed {feed.source}", feed.run
        for inquirer in self.inquiries.all():
            yield f"inquiries {inquirer.source}", inquirer.run

    async def attest(self, device: DeviceId, actor: str, reason: str) -> Sequence[Mapping[str, Any]]:
        """Have a device attest again, and keep who wanted it. Raises ``KeyError`` or ``SourceError``."""
        slot = self._devices.slot(device)
        if slot is None:
            raise KeyError(device)
        asked = await self.inquiries.attest(device, slot.records)
        detail = f"{actor} has {device} attest again: {reason}"
        self._devices.notice(Notice("asked", device, detail, self._clock.now().wall))
        self._devices.commit()
        return [each._asdict() for each in asked]

    @property
    def asking(self) -> Asking:
        """What the operator's window takes of it."""
        return Asking(self.attest, self.seen)

    def seen(self) -> Iterator[Mapping[str, Any]]:
        """Devices that their verifiers see where the inventory does not bind them."""
        for device, claim in self.claims.all():
            yield {"device": device, **claim._asdict(), "address": str(claim.address)}

    def close(self) -> None:
        """Close and remove the hook's socket."""
        if self._hook is not None:
            self._hook.close()
        if self._file is not None:
            self._file.remove()

    def health(self) -> Iterator[Health]:
        """What an operator should know; none of it makes the service unready."""
        if self._hook is not None and self._config.hook is not None:
            yield Health("hook", True, f"{self._config.hook.socket}, {self._hook.frames} hints")
        for feed in self._feeds:
            yield Health(f"hints {feed.source}", True, feed.state())
        for source in self._config.sources:
            inquirer = self.inquiries.get(source.name)
            if source.name not in self._sediment:
                continue
            said = "no api: replayable" if inquirer is None else inquirer.state()
            yield Health(f"inquiries {source.name}", True, said)

    def wire(self, metrics: Metrics) -> None:
        """Let the metrics read what these parts count."""
        config, hinted = self._config, metrics.hinted
        hinted.sources = (*config.hint_sources, OTHER)
        for source in hinted.sources:
            metrics.add_hints(source)
        hinted.hints = lambda: self._admit.hints
        hinted.feeds = lambda: {feed.source: feed.connected for feed in self._feeds}
        hinted.asked = {source: self._counts(source) for source in self._sediment}
        sizes = dict.fromkeys(self._sediment, 0)
        for device in config.devices:
            for each in device.sources:
                if each in sizes:
                    sizes[each] += 1
        hinted.replayable = lambda: {name: size - self._confirmed(name) for name, size in sizes.items()}

    def _confirmed(self, source: SourceName) -> int:
        inquirer = self.inquiries.get(source)
        return 0 if inquirer is None else inquirer.confirmed

    def _counts(self, source: SourceName) -> Callable[[], Mapping[tuple[str, str], int]]:
        inquirer = self.inquiries.get(source)
        nothing: Mapping[tuple[str, str], int] = {}
        return (lambda: nothing) if inquirer is None else (lambda: inquirer.counts)
