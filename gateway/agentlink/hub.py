"""The gateway's end: one gRPC service on which agents attach, each with a certificate of its own.

What lives here: who may attach, the first messages, the life of an attachment and its end. What must not: rules,
devices, what a path gate is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import grpc
import grpc.aio

from gateway import __version__
from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.agentlink.alerts import Inbox
from gateway.agentlink.documents import RemoteDocuments
from gateway.agentlink.remote import RemoteGate, Session
from gateway.certs import Identity, IdentityRefused, Role, TlsMaterial, prove
from gateway.certs.identity import check_standing
from gateway.control.ports import Clock, Notice
from gateway.core.errors import ConfigError

#: Seconds for an agent's first message: it is sent with the call.
HELLO_SECONDS = 15.0
#: Seconds for an agent to bring a plan into force: a table with 100,000 known addresses takes about a second.
READY_SECONDS = 60.0
#: Seconds between looks at certificates and beats.
AUDIT_SECONDS = 1.0
#: Seconds without a beat (one a second) after which an attachment is given up.
SILENT_SECONDS = 15.0
#: Seconds for attachments to end at a stop.
STOP_SECONDS = 2.0
#: Seconds between two notices with the same words about the same agent: a refused agent tries again and again.
SAID_SECONDS = 300.0
#: Sentences remembered for that.
SAID_MOST = 256
#: Attachments at once: one an agent, and room for those that are being refused.
MOST_CALLS = 64

#: What the library raises when a stream is gone: while reading, writing, or because it has ended already.
LIBRARY = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)

#: HTTP/2 pings in both directions (milliseconds): a host that vanished is noticed, and middleboxes keep the flow.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SERVER_OPTIONS = (
    *KEEPALIVE,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", wire.MESSAGE_BYTES),
    ("grpc.max_send_message_length", wire.MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", MOST_CALLS),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class AgentTarget:
    """One agent that may attach: its path gate here, the plan of its host, the lease told to it in seconds, where
    its host's runtime alerts go, and who keeps the documents there."""

    gate: RemoteGate
    plan: wire.Plan
    digest: str
    lease: float
    inbox: Inbox = field(default_factory=Inbox)
    documents: RemoteDocuments | None = None


class AgentState(NamedTuple):
    """What is known of an agent. ``since``: UNIX seconds of the attachment or of its loss."""

    attached: bool
    detail: str
    since: float
    program: str
    path_gate: str
    not_after: float
    resources: Mapping[str, float]
    notes: Mapping[str, str]


class _Refused(Exception):
    """Ends a call with a status that the agent shows."""

    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class _Attached(NamedTuple):
    session: Session
    identity: Identity
    program: str
    path_gate: str
    since: float


class AgentHub:
    """Listens for agents. ``start``, then ``run`` until cancelled, then ``stop``."""

    def __init__(
        self,
        listen: str,
        material: TlsMaterial,
        agents: Mapping[str, AgentTarget],
        clock: Clock,
        notice: Callable[[Notice], None],
    ) -> None:
        """``agents`` by the name in their certificates; ``listen``: ``host:port``."""
        self._listen = listen
        self._material = material
        self._agents = dict(agents)
        self._clock = clock
        self._notice = notice
        self._attached: dict[str, _Attached] = {}
        self._lost: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._server: grpc.aio.Server | None = None
        self._stopping = False
        self.port = 0
        material.on_change(self._audit)

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises ``ConfigError`` when that is not possible."""
        server = grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._attach)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.METHOD_SERVICE, {wire.METHOD_NAME: handler}),)
        )
        # Asked at every handshake, so a renewed certificate is shown to whoever comes next.
        credentials = grpc.dynamic_ssl_server_credentials(self._shown(), self._shown, True)
        try:
            self.port = server.add_secure_port(self._listen, credentials)
        except RuntimeError as error:
            mend = "free the port, or name an address of this host under agents: listen:"
            raise ConfigError(f"agents: listen {self._listen}", "cannot be listened on", mend) from error
        await server.start()
        self._server = server

    def _shown(self) -> grpc.ServerCertificateConfiguration:
        material = self._material.current
        return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)

    async def run(self) -> None:
        """Look after certificates and beats until cancelled."""
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            self._audit()

    async def stop(self) -> None:
        """End every attachment; agents go on enforcing."""
        self._stopping = True
        for attached in self._attached.values():
            attached.session.end("the gateway stops")
        if self._server is not None:
            await self._server.stop(STOP_SECONDS)

    def _audit(self) -> None:
        now = self._clock.now()
        for name, attached in list(self._attached.items()):
            try:
                check_standing(attached.identity, self._material.revoked, now.wall)
            except IdentityRefused as error:
                attached.session.end(str(error))
                continue
            if now.boot - attached.session.beaten > SILENT_SECONDS:
                attached.session.end(f"agent {name} has been silent for {SILENT_SECONDS:g} s")

    def states(self) -> Mapping[str, AgentState]:
        """What is known of each configured agent."""
        return {name: self._state(name, target) for name, target in self._agents.items()}

    def _state(self, name: str, target: AgentTarget) -> AgentState:
        found = self._attached.get(name)
        if found is None or target.gate.why:
            return AgentState(False, target.gate.why, self._lost.get(name, 0.0), "", "", 0.0, {}, {})
        session = found.session
        words = [f"agent {name} is attached: {found.path_gate}, version {found.program}"]
        if found.program != __version__:
            words.append(f"the gateway is {__version__}: they understand each other, upgrade both all the same")
        words += [f"{part}: {note}" for part, note in sorted(session.notes.items())]
        return AgentState(
            True,
            "; ".join(words),
            found.since,
            found.program,
            found.path_gate,
            session.not_after,
            session.resources,
            session.notes,
        )

    # --- one attachment ---------------------------------------------------------------------------------

    async def _attach(
        self, incoming: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        try:
            await self._serve(incoming, context)
        except _Refused as refused:
            await context.abort(refused.code, refused.why)
        except LIBRARY as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the link was lost: {error}"[: wire.SENTENCE])
        except Exception as error:  # a bug: the library would only log it, the service has to end by it
            context_of = {"message": "an attachment ended by a bug", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context_of)
            raise

    async def _serve(
        self, incoming: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> NoReturn:
        identity = self._identify(context)
        target = self._agents[identity.name]
        session = Session(self._clock)
        hello, protocol = await self._hello(incoming, identity)
        session.bound.learn(hello.boot, self._clock.now().boot)
        await context.write(wire.encode(self._welcome(hello, protocol, identity, target)))
        reader = asyncio.create_task(self._read(incoming, session, identity.name, target), name="link-read")
        try:
            ready = await self._ready(session, reader, identity)
            found = _Attached(session, identity, hello.program, hello.path_gate, self._clock.now().wall)
            self._attached[identity.name] = found
            session.on_bypasses = target.gate.around
            target.gate.attach(session, f"agent {identity.name} attached ({ready.backend})")
            if target.documents is not None:
                target.documents.attached(session, protocol)
            self._say(identity.name, f"attached from {context.peer()}, version {hello.program}", again=True)
            pump = asyncio.create_task(session.pump(context.write), name="link-write")
            try:
                await asyncio.wait((reader, pump, session.ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                why = self._reason(session, reader, pump)
                # Before anything is waited for: a call that is cancelled twice would not come back to it.
                self._end(identity.name, found, target, why)
                await _ended(pump)
        finally:
            await _ended(reader)
        raise _Refused(grpc.StatusCode.UNAVAILABLE, why)

    def _identify(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Identity:
        shown = [*(context.auth_context().get("x509_pem_cert") or ()), b""]
        try:
            identity = self._material.identify(bytes(shown[0]))
        except IdentityRefused as error:
            self._refused(context.peer(), str(error))
            raise _Refused(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        if identity.role is not Role.AGENT or identity.name not in self._agents:
            why = f"{identity} is no agent of a target of this gateway"
            self._refused(context.peer(), why)
            raise _Refused(grpc.StatusCode.PERMISSION_DENIED, why)
        return identity

    async def _hello(self, incoming: AsyncIterator[bytes], identity: Identity) -> tuple[wire.Hello, int]:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message = wire.read_from_agent(await anext(incoming))
        except (TimeoutError, StopAsyncIteration, wire.LinkProtocolError) as error:
            why = f"agent {identity.name} did not say a hello that can be read: {error}"
            self._say(identity.name, why)
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, why) from error
        if not isinstance(message, wire.Hello):
            why = f"agent {identity.name} began with {type(message).__name__}"
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, why)
        common = set(message.protocols) & set(wire.PROTOCOLS)
        if not common:
            why = (
                f"agent {identity.name} ({message.program[:40]}) speaks link protocol {message.protocols[:5]},"
                f" the gateway ({__version__}) {wire.PROTOCOLS}: upgrade the older one"
            )
            self._agents[identity.name].gate.explain(why)
            self._say(identity.name, why)
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, why)
        return message, max(common)

    def _welcome(self, hello: wire.Hello, protocol: int, identity: Identity, target: AgentTarget) -> wire.Welcome:
        material = self._material.current
        proof = prove(material.key, wire.PROOF, hello.nonce, identity.name.encode(), target.digest.encode())
        plan = None if hello.digest == target.digest else target.plan
        return wire.Welcome(protocol, __version__, material.certificate, proof, target.lease, target.digest, plan)

    async def _ready(self, session: Session, reader: asyncio.Task[None], identity: Identity) -> wire.Ready:
        ready = session.ready
        await asyncio.wait(
            (ready, reader, session.ended), timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        found = ready.result() if ready.done() else None
        if isinstance(found, wire.Ready):
            return found
        why = found.why[: wire.SENTENCE] if found is not None else self._reason(session, reader)
        why = why or f"not ready within {READY_SECONDS:g} s"
        self._agents[identity.name].gate.explain(f"agent {identity.name} cannot enforce: {why}")
        self._say(identity.name, f"cannot enforce: {why}")
        raise _Refused(grpc.StatusCode.ABORTED, why)

    async def _read(self, incoming: AsyncIterator[bytes], session: Session, name: str, target: AgentTarget) -> None:
        """Take messages until the agent goes. Raises ``LinkProtocolError``."""
        async for data in incoming:
            message = wire.read_from_agent(data)
            if isinstance(message, wire.Ready | wire.Unable):
                if session.ready.done():
                    raise wire.LinkProtocolError("the agent said twice whether it is ready")
                session.ready.set_result(message)
            elif isinstance(message, wire.Damage):
                target.gate.damaged(packing.unpack_damage(message, name))
            elif isinstance(message, wire.Heard):
                target.inbox.take(message, self._clock.now())
            elif isinstance(message, wire.Advised):
                if target.documents is not None:
                    target.documents.advised(message)
            else:
                session.take(message)

    def _reason(self, session: Session, *tasks: asyncio.Task[None]) -> str:
        """Why an attachment ended; raises what none of the declared reasons explains."""
        if session.ended.done():
            return session.ended.result()
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if isinstance(error, wire.LinkProtocolError):
                return str(error)
            if error is not None and not isinstance(error, LIBRARY):
                raise error
        return "the link was lost"

    def _end(self, name: str, found: _Attached, target: AgentTarget, why: str) -> None:
        target.gate.detach(found.session, why)
        target.inbox.detached()
        if target.documents is not None:
            target.documents.detached(found.session)
        if self._attached.get(name) is found:
            del self._attached[name]
            self._lost[name] = self._clock.now().wall
            if not self._stopping:
                self._say(name, f"{why}; it goes on enforcing until its leases end", again=True)

    def _refused(self, peer: str, why: str) -> None:
        # Without the port: whoever is refused comes again from another one.
        self._tell("refused", f"refused {peer.rpartition(':')[0]}: {why}", again=False)

    def _say(self, name: str, sentence: str, *, again: bool = False) -> None:
        self._tell(name, f"agent {name}: {sentence}", again=again)

    def _tell(self, subject: str, sentence: str, *, again: bool) -> None:
        now = self._clock.now()
        last = self._said.get(sentence)
        if not again and last is not None and now.boot - last < SAID_SECONDS:
            return
        if len(self._said) >= SAID_MOST:
            self._said.clear()
        self._said[sentence] = now.boot
        self._notice(Notice("agent", subject, sentence, now.wall))


async def _ended(task: asyncio.Task[None]) -> None:
    """End a task. What it ended by was looked at already, or comes of the stream's end."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()
