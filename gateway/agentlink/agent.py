"""The agent's end: attaches to the gateway and does on its own host what it is told, with the path gate it was
given.

While the link is down everything stands as it was told, each admission until its own end: nothing is extended,
nothing is withdrawn. What must not live here: nftables, KubeArmor, deciding anything.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grpc
import grpc.aio

from gateway import __version__
from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.agentlink.attachment import Attachment, NotAttached, received
from gateway.agentlink.hub import KEEPALIVE, LIBRARY
from gateway.certs import IdentityRefused, Material, Role, TlsMaterial, identify, verify_proof
from gateway.certs.identity import check_standing
from gateway.control.ports import Backend, Clock, LayerProof, Proof, Showing, Strayed
from gateway.core.errors import BackendError, ConfigError
from gateway.core.model import Address, Applied, Change, ChangeKind

#: Seconds for the gateway's first message, after the connection is there.
WELCOME_SECONDS = 20.0
#: Seconds between attempts, doubling, each shortened at random by up to half: a gateway that comes back is not met
#: by all its agents at once.
FIRST_RETRY, LONGEST_RETRY = 0.5, 10.0
#: Seconds of attachment after which the next attempt is quick again.
STABLE_SECONDS = 10.0
#: Seconds between looks at admissions that have ended, for whoever is told what is admitted.
FORGET_SECONDS = 5.0

_OPENS = frozenset({ChangeKind.ADMIT, ChangeKind.REFRESH})


class PlanStore(Protocol):
    """Where the newest plan is kept: an agent enforces at its start, whether the gateway is there or not."""

    def load(self) -> bytes:
        """The plan kept; empty when there is none."""

    def save(self, plan: bytes) -> None:
        """Keep a plan. Raises ``ConfigError``."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """``gateway`` is ``host:port``; ``lease`` the longest (seconds) that any admission may stand here, whatever the
    gateway says; ``path_gate`` is told to people."""

    gateway: str
    path_gate: str
    lease: float


class LinkState(NamedTuple):
    """How the link stands, for people. ``since``: UNIX seconds."""

    attached: bool
    detail: str
    since: float


class Agent:
    """Owns the path gate of this host. ``run`` until cancelled, then ``stop``."""

    def __init__(
        self,
        settings: AgentSettings,
        material: TlsMaterial,
        clock: Clock,
        make_gate: Callable[[wire.Plan], Backend],
        store: PlanStore,
        *,
        boot_id: str,
        resources: Callable[[], Mapping[str, float]] = dict,
        notes: Callable[[], Mapping[str, str]] = dict,
        bypasses: Callable[[], tuple[str, ...] | None] = lambda: None,
        changed: Callable[[LinkState], None] = lambda _state: None,
        planned: Callable[[wire.Plan], None] = lambda _plan: None,
        report: Callable[[float], wire.Heard | None] = lambda _boot: None,
        layers: Callable[[], Sequence[LayerProof]] = tuple,
        declared: Callable[[int, wire.Declared], None] = lambda _serial, _declared: None,
        advised: Callable[[], wire.Advised | None] = lambda: None,
    ) -> None:
        """``make_gate`` builds the path gate of a plan (``ConfigError`` where it cannot); ``changed`` is told each
        time that the link's state changes, ``planned`` each time that a plan is in force; ``report`` makes the next
        message about runtime alerts at a boot time, if there is something to say; ``layers`` are those of this host
        that never admit and can show what they have; ``declared`` takes the documents that should stand, and
        ``advised`` says how far the newest got."""
        self._settings = settings
        self._material = material
        self._clock = clock
        self._make_gate = make_gate
        self._store = store
        self._boot_id = boot_id
        self._resources = resources
        self._notes = notes
        self._bypasses = bypasses
        self._changed = changed
        self._planned = planned
        self._report = report
        self._layers = layers
        self.declared = declared
        self.advised = advised
        self._gate: Backend | None = None
        self._found = False
        self._digest = ""
        self._damages: asyncio.Task[None] | None = None
        self._send: Callable[[wire.Message], None] | None = None
        self._admitted: dict[Address, float] = {}
        self.state = LinkState(False, "not attached yet", clock.now().wall)

    @property
    def admitted(self) -> frozenset[Address]:
        """Addresses verified as admitted on this host, whose end has not come."""
        now = self._clock.now().boot
        return frozenset(address for address, until in self._admitted.items() if until > now)

    # --- life -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Enforce the plan that was kept, attach, work, attach again; until cancelled.

        Raises ``BackendError`` when the path gate of the plan that was kept cannot be started: on this host
        something is to be mended, and a new process is the best attempt.
        """
        kept = self._store.load()
        if kept:
            try:
                await self._enforce(wire.read_plan(kept))
            except wire.LinkProtocolError as error:
                self._say(attached=False, detail=f"the plan that was kept is not used: {error}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._attaching(), name="link")
            tasks.create_task(self._forgetting(), name="forget")

    async def stop(self) -> None:
        """Release the path gate; what it enforces stays, with its ends. Raises ``BackendError``."""
        await self._drop_gate()

    async def _attaching(self) -> None:
        wait = FIRST_RETRY
        while True:
            began = self._clock.now().boot
            try:
                await self._attach()
            except NotAttached as error:
                self._say(attached=False, detail=str(error))
            if self._damages is not None and self._damages.done():
                self._damages.result()  # a bug of the path gate ends the process
            wait = FIRST_RETRY if self._clock.now().boot - began > STABLE_SECONDS else min(wait * 2, LONGEST_RETRY)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing

    async def _forgetting(self) -> None:
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            now = self._clock.now().boot
            for address in [address for address, until in self._admitted.items() if until <= now]:
                del self._admitted[address]

    def _say(self, *, attached: bool, detail: str) -> None:
        if (attached, detail) != self.state[:2]:
            self.state = LinkState(attached, detail, self._clock.now().wall)
            self._changed(self.state)

    # --- one attachment ---------------------------------------------------------------------------------

    async def _attach(self) -> None:
        """Attach once and work until the link ends. Raises ``NotAttached``."""
        material = self._material.current
        # Every connection is made with the newest certificate and from nothing.
        channel = grpc.aio.secure_channel(
            self._settings.gateway,
            grpc.ssl_channel_credentials(material.authority, material.key, material.certificate),
            options=(
                *KEEPALIVE,
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", wire.MESSAGE_BYTES),
                ("grpc.max_send_message_length", wire.MESSAGE_BYTES),
            ),
        )
        try:
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                f"/{wire.METHOD_SERVICE}/{wire.METHOD_NAME}"
            )
            await self._converse(method(), material)
        except grpc.aio.AioRpcError as error:
            raise NotAttached(self._why(error, material)) from error
        except LIBRARY as error:
            raise NotAttached(f"{self._settings.gateway}: the link was lost") from error
        except (wire.LinkProtocolError, IdentityRefused) as error:
            raise NotAttached(f"the gateway is not believed: {error}") from error
        except (ConfigError, BackendError) as error:
            raise NotAttached(f"the gateway's plan cannot be enforced here: {error}") from error
        finally:
            self._send = None
            await channel.close()

    def _why(self, error: grpc.aio.AioRpcError, material: Material) -> str:
        words = (error.details() or "no reason was given").strip()[: wire.SENTENCE]
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            try:
                check_standing(material.identity, material.revoked, self._clock.now().wall)
            except IdentityRefused as own:
                words = f"{own}; {words}"
            return f"{self._settings.gateway}: {words}"
        return f"{self._settings.gateway} refuses: {words}"

    async def _converse(self, call: grpc.aio.StreamStreamCall[bytes, bytes], material: Material) -> None:
        nonce = secrets.token_bytes(32)
        await call.write(wire.encode(self._hello(nonce)))
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                welcome = wire.read_from_gateway(await received(call))
        except TimeoutError as error:
            msg = f"{self._settings.gateway} did not answer within {WELCOME_SECONDS:g} s"
            raise NotAttached(msg) from error
        if not isinstance(welcome, wire.Welcome) or welcome.protocol not in wire.PROTOCOLS:
            raise wire.LinkProtocolError("it did not begin with a welcome of a protocol that was offered")
        try:
            name = self._believe(welcome, nonce, material)
            await self._take_plan(welcome)
        except (IdentityRefused, wire.LinkProtocolError, ConfigError, BackendError) as error:
            # The gateway shows it, too. Nothing else is taken from it.
            await call.write(wire.encode(wire.Unable(str(error)[: wire.SENTENCE])))
            await call.done_writing()
            await _drained(call)
            raise
        assert self._gate is not None
        await call.write(wire.encode(wire.Ready(self._gate.name, self._found)))
        self._say(attached=True, detail=f"{self._settings.gateway}: gateway {name}, version {welcome.program[:40]}")
        await Attachment(self, call, min(welcome.lease, self._settings.lease), welcome.protocol).work()

    def _hello(self, nonce: bytes) -> wire.Hello:
        return wire.Hello(
            wire.PROTOCOLS,
            __version__,
            self._boot_id,
            self._clock.now().boot,
            self._digest,
            nonce,
            self._settings.path_gate,
        )

    def _believe(self, welcome: wire.Welcome, nonce: bytes, material: Material) -> str:
        """Return the gateway's name if it shows a certificate of a gateway of this site, not revoked, and its key.

        TLS has checked the chain and the host's name already; it does not know roles nor the revocation list.
        """
        at = self._clock.now().wall
        identity = identify(welcome.certificate, material.authority, self._material.revoked, at)
        if identity.role is not Role.GATEWAY:
            raise IdentityRefused(f"{identity} is no gateway")
        own = material.identity.name.encode()
        verify_proof(welcome.certificate, welcome.proof, wire.PROOF, nonce, own, welcome.digest.encode())
        return identity.name

    # --- the plan ---------------------------------------------------------------------------------------

    async def _take_plan(self, welcome: wire.Welcome) -> None:
        if welcome.plan is None:
            if welcome.digest != self._digest or self._gate is None:
                raise wire.LinkProtocolError("it sent no plan, and the one kept here is another")
            return
        data = wire.encode(welcome.plan)
        if wire.digest_of(data) != welcome.digest:
            raise wire.LinkProtocolError("the plan is not the one that was proved")
        await self._enforce(welcome.plan)
        self._store.save(data)

    async def _enforce(self, plan: wire.Plan) -> None:
        """Bring a plan into force. Between the old path gate's hands and the new one's, what stands goes on."""
        gate = self._make_gate(plan)
        await self._drop_gate()
        self._found = await gate.start()
        self._gate = gate
        self._digest = wire.digest_of(wire.encode(plan))
        self._damages = asyncio.create_task(self._watch(gate), name="damages")
        self._planned(plan)

    async def _drop_gate(self) -> None:
        gate, self._gate, self._digest = self._gate, None, ""
        if self._damages is not None:
            self._damages.cancel()
            await asyncio.wait((self._damages,))
            self._damages = None
        self._admitted.clear()
        if gate is not None:
            await gate.stop()

    async def _watch(self, gate: Backend) -> None:
        async for sentence in gate.damages():
            if not isinstance(sentence, Strayed):
                self._admitted.clear()
            if self._send is not None:
                self._send(packing.pack_damage(sentence))

    # --- for an attachment ------------------------------------------------------------------------------

    async def do(self, message: wire.Work | wire.Look, changes: list[Change]) -> wire.Message:
        """Do what one message asks; returns the answer."""
        gate = self._gate
        assert gate is not None
        try:
            if isinstance(message, wire.Look):
                addresses = packing.unpack_addresses(message.addresses)
                if message.proof:
                    return packing.pack_proof(message.number, addresses, await self._prove(gate, addresses))
                return packing.pack_seen(message.number, addresses, await gate.observe(addresses))
            outcomes = await (gate.cut(changes) if message.cut else gate.apply(changes))
        except BackendError as error:
            return wire.Failed(message.number, error.what[: wire.SENTENCE], error.transient)
        for outcome in outcomes:
            address = outcome.change.address
            if outcome.state is Applied.VERIFIED and outcome.change.kind in _OPENS:
                self._admitted[address] = outcome.change.until
            else:
                self._admitted.pop(address, None)
        return packing.pack_done(message.number, outcomes)

    async def _prove(self, gate: Backend, addresses: Sequence[Address]) -> Proof:
        proof = await gate.prove(addresses)
        layers: dict[str, Showing] = {}
        for prove in self._layers():
            layers |= await prove(addresses)
        return proof._replace(layers=layers)

    def beat(self, *, full: bool) -> wire.Beat:
        """The next beat."""
        resources = dict(self._resources()) if full else {}
        notes = {part: note[: wire.SENTENCE] for part, note in self._notes().items()} if full else {}
        if full and self._material.wrong:
            notes["certificate"] = self._material.wrong[: wire.SENTENCE]
        not_after = self._material.current.identity.not_after
        told = self._bypasses()
        around = None if told is None else tuple(each[: wire.SENTENCE] for each in told[: wire.MOST_BYPASSES])
        return wire.Beat(self._clock.now().boot, not_after, resources, notes, around)

    def report(self) -> wire.Heard | None:
        """The next message about runtime alerts."""
        return self._report(self._clock.now().boot)

    def read(self, data: bytes, lease: float) -> tuple[wire.Work | wire.Look | wire.Piece, list[Change]]:
        """Return what a message asks, ends on this host's clock. Raises ``LinkProtocolError``."""
        now = self._clock.now().boot
        message = wire.read_from_gateway(data)
        if isinstance(message, wire.Work):
            return message, packing.unpack_work(message, now, lease)
        if isinstance(message, wire.Look | wire.Piece):
            return message, []
        raise wire.LinkProtocolError("it said welcome twice")

    def send_damages(self, send: Callable[[wire.Message], None] | None) -> None:
        """Where damages are told from now on."""
        self._send = send


async def _drained(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
    try:
        async with asyncio.timeout(WELCOME_SECONDS):
            while await call.read() is not grpc.aio.EOF:
                pass
    except (TimeoutError, grpc.aio.AioRpcError):
        pass
