"""``ragate agent``: one host enforces what the gateway tells it, with the same path gates as the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.agentlink.agent import Agent, AgentSettings, LinkState
from gateway.agentlink.alerts import Counts, Outbox
from gateway.app.clock import SystemClock, boot_id
from gateway.app.documents import ToldDocuments
from gateway.app.logs import configure_logging
from gateway.app.process import SWITCH_SECONDS, collect_at_rest, settle_garbage
from gateway.certs import Role, TlsMaterial
from gateway.certs.folder import PRIVATE, write_whole
from gateway.config import AgentConfig
from gateway.control.ports import Backend, Notice
from gateway.core.errors import BackendError, ConfigError
from gateway.core.model import Address
from gateway.enforce import nft
from gateway.enforce.nft import Baseline, ConnectionRate, Endpoint, GatedService, NftBackend
from gateway.enforce.relay import ConnectionRate as RelayRate
from gateway.enforce.relay import RelayBackend, RelayRoute
from gateway.watch.bypass import BypassWatch, LookError
from gateway.watch.kubearmor import Ear
from gateway.watch.resources import ResourceWatch, Sampler

if TYPE_CHECKING:
    from gateway.enforce.kubearmor import KubeArmorAdvisory

#: Seconds between two declarations to KubeArmor: it rebuilds everything for each.
ADVISE_SECONDS = 1.0
#: Bytes of a plan that was kept.
PLAN_BYTES = wire.MESSAGE_BYTES
#: What the agent says of its link, in its state folder.
STATUS = "status.json"
#: Exit code after an undeclared error (``EX_SOFTWARE`` of ``sysexits.h``).
BUG = 70


class PlanFile:
    """Keeps the newest plan in a file that is replaced as a whole."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self) -> bytes:
        """The plan that was kept; empty when there is none. Raises ``ConfigError`` for a file that is no plan's."""
        try:
            with self._file.open("rb") as opened:
                data = opened.read(PLAN_BYTES + 1)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ConfigError(str(self._file), f"cannot be read: {error.strerror}", "check its rights") from error
        if len(data) > PLAN_BYTES:
            raise ConfigError(str(self._file), f"is larger than {PLAN_BYTES} bytes", "delete it")
        return data

    def save(self, plan: bytes) -> None:
        """Keep a plan. Raises ``ConfigError``."""
        write_whole(self._file, plan, PRIVATE)


def plan_baseline(plan: wire.Plan) -> Baseline:
    """The static part of the nftables path gate of a plan. Raises ``ConfigError``."""
    try:
        return Baseline(
            services=tuple(
                GatedService(_endpoint(address, port, protocol), frozenset(profiles))
                for _, address, port, protocol, profiles in plan.services
            ),
            corridor=tuple(_endpoint(*entry) for entry in plan.corridor),
            always_allowed=tuple(ip_network(network) for network in plan.always_allowed),
            profiles=plan.profiles,
            inventory_size=len(plan.known),
            rates={name: ConnectionRate(number, seconds) for name, (number, seconds) in plan.rates.items()},
        )
    except ValueError as error:
        raise ConfigError("the gateway's plan", str(error), "are both of the same version?") from error


def _endpoint(address: str, port: int, protocol: str) -> Endpoint:
    return Endpoint(Address.parse(address), port, protocol)


def _known(plan: wire.Plan) -> list[Address]:
    try:
        return packing.unpack_addresses(plan.known)
    except wire.LinkProtocolError as error:
        raise ConfigError("the gateway's plan", str(error), "are both of the same version?") from error


def path_gate(config: AgentConfig, plan: wire.Plan, clock: SystemClock) -> Backend:
    """The backend of this host for a plan. Raises ``ConfigError``."""
    baseline = plan_baseline(plan)
    if config.path_gate == "nft":
        return NftBackend(baseline, _known(plan), clock)
    services = {name: (address, port) for name, address, port, _, _ in plan.services}
    missing = [entry.service for entry in config.relay if entry.service not in services]
    if missing:
        what = f"relay for {', '.join(missing)}, which the gateway does not gate on this host"
        raise ConfigError(str(config.path), what, "name it under services of the target, or remove the entry")
    routes = [RelayRoute(entry.service, str(entry.listen), *services[entry.service]) for entry in config.relay]
    reaches = {
        profile: frozenset(name for name, _, _, _, profiles in plan.services if profile in profiles)
        for profile in plan.profiles
    }
    rates = {name: RelayRate(number, float(seconds)) for name, (number, seconds) in plan.rates.items()}
    return RelayBackend(routes, reaches, clock, baseline.always_allowed, rates=rates)


def kept_plan(config: AgentConfig) -> wire.Plan | None:
    """The newest plan that the gateway sent; None when there is none. Raises ``ConfigError``."""
    data = PlanFile(plan_file(config)).load()
    try:
        return wire.read_plan(data) if data else None
    except wire.LinkProtocolError as error:
        raise ConfigError(str(plan_file(config)), str(error), "delete it: the gateway sends it again") from error


def plan_file(config: AgentConfig) -> Path:
    """Where the newest plan is kept."""
    return config.state / "plan"


def agent_baseline_text(config: AgentConfig) -> str:
    """The nftables baseline of the newest plan, to load at boot. Raises ``ConfigError``."""
    if config.path_gate != "nft":
        what = f"path_gate {config.path_gate} has no nftables baseline"
        raise ConfigError(str(config.path), what, "load nothing at boot, or use path_gate: nft")
    plan = kept_plan(config)
    if plan is None:
        mend = "start ragate agent; once it has been attached the plan is kept"
        raise ConfigError(str(plan_file(config)), "the gateway has not sent a plan yet", mend)
    return nft.render_baseline_file(plan_baseline(plan), _known(plan))


def agent_uninstall(config: AgentConfig) -> list[str]:
    """Remove what the agent's enforcement left on this host; one line a thing. Raises ``BackendError``."""
    lines = [*_withdrawn(config), f"kept: the state folder {config.state}; delete it by hand"]
    if config.path_gate != "nft":
        return [f"{config.path_gate}: ended with the agent, nothing stays behind", *lines]
    nft.uninstall()
    return ["nftables: table inet ragate is gone; the gated services on this host are open to everybody", *lines]


def _withdrawn(config: AgentConfig) -> list[str]:
    """Ask KubeArmor to delete our policies, where it was told any. Raises ``BackendError``, ``ConfigError``."""
    plan = None if config.kubearmor is None else kept_plan(config)
    if plan is None:
        return []
    name = TlsMaterial(config.certificates, Role.AGENT).current.identity.name
    from gateway.app.parts import kubearmor  # noqa: PLC0415 - what an agent without KubeArmor never needs

    layer = kubearmor.at_agent(config, name, plan, SystemClock(), lambda _: None)
    # KubeArmor does not tell its network policies: they are asked away by their names.
    layer.declare_documents((), ToldDocuments.forget(config.state))
    asyncio.run(layer.withdraw())
    return [f"kubearmor: asked to delete our policies: {layer.state().get('detail', '')}"]


def agent_state(config: AgentConfig) -> tuple[Mapping[str, Any] | None, str]:
    """What a running agent says of its link; None and why when none runs."""
    file = config.state / STATUS
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
        alive = Path(f"/proc/{int(found['pid'])}").exists()
    except (OSError, ValueError, KeyError, TypeError):
        return None, f"no agent has written {file}"
    if not alive:
        return None, "the agent is not running"
    part = {"part": "link", "ready": bool(found.get("attached")), "detail": str(found.get("detail"))}
    return {"ready": part["ready"], "parts": [part]}, ""


def run_agent(config: AgentConfig) -> int:
    """Run the agent until SIGTERM or SIGINT; returns the exit code. Raises ``ConfigError`` or ``BackendError``."""
    configure_logging()
    sys.setswitchinterval(SWITCH_SECONDS)
    return uvloop.run(_Service(config).run())


class _Service:
    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._clock = SystemClock()
        self._log = structlog.get_logger("ragate")
        self._layer: KubeArmorAdvisory | None = None
        self._layer_task: asyncio.Task[None] | None = None
        self._bypass: BypassWatch | None = None
        self._bypass_task: asyncio.Task[None] | None = None
        self._declared: frozenset[Address] | None = None
        # A number of this life: what an earlier one had counted is no part of what this one counts.
        self._outbox = Outbox(secrets.randbits(62))
        self._ear: Ear | None = None
        if config.kubearmor is not None and config.kubearmor.streams:
            from gateway.app.parts import kubearmor  # noqa: PLC0415 - as below

            self._ear = kubearmor.ear(config.kubearmor, self._clock, self._outbox.put, self._lost)

    async def run(self) -> int:
        """Work until told to stop. What is enforced stays, with its ends."""
        config = self._config
        try:
            config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            what = f"state folder cannot be made: {error.strerror}"
            raise ConfigError(str(config.state), what, "name another under state:") from error
        material = TlsMaterial(config.certificates, Role.AGENT, say=self._say)
        self._name = material.current.identity.name
        self._documents = ToldDocuments(config.state, self._say, kubearmor=config.kubearmor is not None)
        self._watch = ResourceWatch(Sampler(config.state), lambda _late: None)
        agent = Agent(
            AgentSettings(str(config.gateway), config.path_gate, config.lease),
            material,
            self._clock,
            lambda plan: path_gate(config, plan, self._clock),
            PlanFile(plan_file(config)),
            boot_id=boot_id(),
            resources=self._resources,
            notes=self._notes,
            bypasses=lambda: None if self._bypass is None else self._bypass.told,
            changed=lambda state: self._changed(state, material),
            planned=self._planned,
            report=self._report,
            layers=lambda: () if self._layer is None else (self._layer.prove,),
            declared=self._documents.take,
            advised=self._documents.advised,
        )
        self._agent = agent
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._log.info("agent", name=self._name, gateway=str(config.gateway))
        parts = [
            asyncio.create_task(agent.run(), name="agent"),
            asyncio.create_task(material.run(), name="certificates"),
            asyncio.create_task(self._watch.run(), name="watch"),
            asyncio.create_task(self._advise(), name="advise"),
            asyncio.create_task(collect_at_rest(lambda: True), name="garbage"),
            *([] if self._ear is None else [asyncio.create_task(self._ear.run(), name="ear")]),
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait((stopped, *parts), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopped, *parts):
                task.cancel()
            await asyncio.wait((stopped, *parts))
            await self._end_layer()
            await self._end_bypass()
            await agent.stop()
        for part in parts:
            cause = None if part.cancelled() else part.exception()
            if cause is not None:
                return self._broken(cause)
        self._log.info("stopped; admissions end with their leases")
        return 0

    def _broken(self, cause: BaseException) -> int:
        error = cause
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, BackendError | ConfigError):
            raise error
        context = {"message": "a part of the agent ended by a bug", "exception": error}
        asyncio.get_running_loop().default_exception_handler(context)
        return BUG

    def _say(self, subject: str, sentence: str) -> None:
        self._log.warning("notice", kind=subject, detail=sentence)

    def _noticed(self, notice: Notice) -> None:
        self._log.warning("notice", kind=notice.kind, subject=notice.subject, detail=notice.detail)

    def _changed(self, state: LinkState, material: TlsMaterial) -> None:
        told = self._log.info if state.attached else self._log.warning
        told("link", attached=state.attached, detail=state.detail)
        shown = {
            "attached": state.attached,
            "detail": state.detail,
            "since": state.since,
            "agent": self._name,
            "pid": os.getpid(),
            "certificate_until": material.current.identity.not_after,
        }
        write_whole(self._config.state / STATUS, (json.dumps(shown, indent=1) + "\n").encode(), PRIVATE)

    def _resources(self) -> Mapping[str, float]:
        sample = self._watch.current()
        if sample is None:
            return {}
        found: dict[str, float | None] = {
            "cpus": sample.cpus,
            "load1": sample.load[0] if sample.load else None,
            "memory_total_bytes": sample.memory_total,
            "memory_available_bytes": sample.memory_available,
            "disk_free_bytes": sample.disk_free,
            "open_files": sample.open_files,
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def _notes(self) -> Mapping[str, str]:
        notes: dict[str, str] = {}
        if self._layer is not None:
            state = self._layer.state()
            notes["kubearmor"] = f"{state.get('state')}: {state.get('detail', '')}"
        if self._ear is not None:
            notes["alerts"] = self._ear.state()
        return notes

    def _report(self, boot: float) -> wire.Heard | None:
        if self._ear is None:
            return None
        tally = self._ear.tally
        up = [stream for stream in tally.streams if stream in tally.up]
        return self._outbox.report(boot, Counts(up, tally.heard, tally.lost, tally.breaks))

    def _lost(self, why: str) -> None:
        self._say(self._name, why)
        if self._layer is not None:
            self._layer.disturbed(why)

    # --- the advisory layer -----------------------------------------------------------------------------

    def _planned(self, plan: wire.Plan) -> None:
        """A plan is in force: ways around it are looked for, and KubeArmor is told of its ports, from here on."""
        # What was loaded stays: looking for garbage in it would stop a cut for tens of milliseconds now and then.
        settle_garbage()
        self._look_for_bypasses(plan)
        if self._config.kubearmor is None:
            return
        from gateway.app.parts import kubearmor  # noqa: PLC0415 - as above

        fresh = kubearmor.at_agent(self._config, self._name, plan, self._clock, self._noticed)
        if self._layer_task is not None:
            self._layer_task.cancel()
        self._layer, self._declared = fresh, None
        self._documents.use(fresh)
        self._layer_task = asyncio.create_task(fresh.run(), name="kubearmor")

    def _look_for_bypasses(self, plan: wire.Plan) -> None:
        """Look for ways around the path gate of this plan; what devices reach through a relay is no way around."""
        if self._config.path_gate != "nft":
            return
        if self._bypass_task is not None:
            self._bypass_task.cancel()
        services = list(dict.fromkeys(address for _, address, _, _, profiles in plan.services if profiles))
        devices = list(map(str, _known(plan)))
        self._bypass = BypassWatch(services, devices, lambda sentence: self._say("bypass", sentence))
        self._bypass_task = asyncio.create_task(_looking(self._bypass), name="bypass")

    async def _end_bypass(self) -> None:
        if self._bypass_task is not None:
            self._bypass_task.cancel()
            await asyncio.wait((self._bypass_task,))

    async def _advise(self) -> None:
        while True:
            await asyncio.sleep(ADVISE_SECONDS)
            if self._bypass_task is not None and self._bypass_task.done() and not self._bypass_task.cancelled():
                self._bypass_task.result()
            if self._layer is None:
                continue
            if self._layer_task is not None and self._layer_task.done():
                self._layer_task.result()
            admitted = self._agent.admitted
            if admitted != self._declared:
                self._declared = admitted
                self._layer.declare(admitted)
            await self._documents.turn()

    async def _end_layer(self) -> None:
        if self._layer_task is not None:
            self._layer_task.cancel()
            await asyncio.wait((self._layer_task,))


async def _looking(watch: BypassWatch) -> None:
    try:
        await watch.run()
    except LookError as error:
        raise BackendError("nft", str(error), transient=False) from error
