"""The door: one coroutine reads a stream and submits, another answers in order.

Pressure is the stream's own: while the admission is full, or too many answers of this stream are still to come,
nothing more is read from it and the sender's window closes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.control.ports import Clock
from gateway.control.reception import Answer, Denied, Identity, Reception, Result, Submission
from gateway.core.errors import ConfigError, Refusal
from gateway.core.model import Instant
from gateway.intake.rpc.pb import verdicts_pb2 as pb
from gateway.intake.rpc.tls import Credentials, identity_of

SERVICE = pb.DESCRIPTOR.services_by_name["Verdicts"].full_name
NAME = 64  #: characters of a source's name or a key's id
SIGNATURE = 1_024  #: bytes of a detached signature
HANDSHAKE_MS = 5_000  #: for TLS: 2 ms of work and a few round trips
OVERHEAD = 4_096  #: bytes of a message beside its document

Context = grpc.aio.ServicerContext[pb.Submission, pb.Answer]
Answers = asyncio.Queue[tuple[int, asyncio.Task[Answer | Denied]] | None]


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """Limits. ``streams``: open at once, and the most of one connection; ``pending``: answers still to come on one
    stream; ``body``: bytes of one document; ``idle_seconds``: of a connection without a stream; ``stop_seconds``:
    that streams under way get when the service stops."""

    streams: int = 256
    pending: int = 64
    body: int = 1 << 20
    idle_seconds: float = 60.0
    stop_seconds: float = 2.0


class RpcDoor:
    """Takes documents on gRPC streams. Counts, for metrics: ``submissions``, ``streams`` open."""

    name = "rpc"

    def __init__(
        self,
        listen: Sequence[tuple[str, int]],
        reception: Reception,
        clock: Clock,
        credentials: Credentials,
        settings: RpcSettings = RpcSettings(),
    ) -> None:
        self._listen = listen
        self._reception = reception
        self._clock = clock
        self._credentials = credentials
        self._settings = settings
        self.submissions = 0
        self.streams = 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return list(self._listen)

    def depth(self) -> int:
        """Streams open now."""
        return self.streams

    def close(self) -> None:
        """Nothing is held before it runs."""

    async def run(self) -> None:
        """Serve until cancelled. Raises ``ConfigError`` when it cannot listen."""
        settings = self._settings
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", settings.body + OVERHEAD),
                ("grpc.max_metadata_size", 8_192),
                ("grpc.max_concurrent_streams", settings.streams),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", int(settings.idle_seconds * 1_000)),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.so_reuseport", 0),
            ),
        )
        submit = grpc.stream_stream_rpc_method_handler(
            self._submit, request_deserializer=_decoded, response_serializer=pb.Answer.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Submit": submit}),))
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        for host, port in self._listen:
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                server.add_secure_port(place, self._credentials.server())
            except RuntimeError as error:
                raise ConfigError(place, "cannot listen here", "choose another address or port") from error
        await server.start()
        await status.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await status.set("", health_pb2.HealthCheckResponse.SERVING)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await status.enter_graceful_shutdown()
            await server.stop(settings.stop_seconds)

    # --- one stream -------------------------------------------------------------------------------------

    async def _submit(self, requests: AsyncIterator[pb.Submission | None], context: Context) -> None:
        peer = _peer_text(context.peer())
        identity = await self._identity(context, peer)
        if self.streams >= self._settings.streams:
            self._reception.turned_away(Refusal.LIMIT, f"{self.streams} streams are open", peer)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open; come back later")
        self.streams += 1
        answers: Answers = asyncio.Queue(self._settings.pending)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(requests, answers, tasks, identity, peer), name="rpc-read")
                while (following := await answers.get()) is not None:
                    tag, task = following
                    await context.write(_answer(tag, await task))
        finally:
            self.streams -= 1

    async def _identity(self, context: Context, peer: str) -> Identity | None:
        """Who the client's certificate says it is. A revoked one ends the stream before anything is read."""
        pem = list((context.auth_context() or {}).get("x509_pem_cert", ()))
        found = identity_of(pem)
        if found is None:
            return None
        identity, serial = found
        if self._credentials.revoked(serial):
            self._reception.turned_away(Refusal.SOURCE, "TLS: the client certificate is revoked", peer)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the client certificate is revoked")
        return identity

    async def _read(
        self,
        requests: AsyncIterator[pb.Submission | None],
        answers: Answers,
        tasks: asyncio.TaskGroup,
        identity: Identity | None,
        peer: str,
    ) -> None:
        async for request in requests:
            received = self._clock.now()
            self.submissions += 1
            await self._reception.room()
            tag = 0 if request is None else request.tag
            task = tasks.create_task(self._take(request, identity, peer, received), name="rpc-take")
            await answers.put((tag, task))
        await answers.put(None)

    async def _take(
        self, request: pb.Submission | None, identity: Identity | None, peer: str, received: Instant
    ) -> Answer | Denied:
        if request is None or max(len(request.source), len(request.key_id)) > NAME:
            denied = Denied(Refusal.FRAMING, "not a message of this door")
        elif len(request.signature) > SIGNATURE or len(request.document) > self._settings.body:
            denied = Denied(Refusal.LENGTHS, f"at most {self._settings.body} bytes are taken at once")
        else:
            return await self._reception.receive(
                Submission(
                    request.document,
                    peer,
                    received,
                    request.source,
                    identity,
                    request.key_id,
                    request.signature,
                    "",
                    request.wait_verified,
                )
            )
        self._reception.turned_away(denied.step, denied.detail, peer)
        return denied


def _decoded(data: bytes) -> pb.Submission | None:
    """None for what is no message: the stream goes on, and the answer says so."""
    try:
        return pb.Submission.FromString(data)
    except DecodeError:
        return None


def _answer(tag: int, found: Answer | Denied) -> pb.Answer:
    results = map(_result, found.results)
    if isinstance(found, Denied):
        retry = float(math.ceil(found.retry))
        problem = pb.Problem(step=found.step.value, detail=found.detail, retry_after=retry, results=results)
        return pb.Answer(tag=tag, problem=problem)
    taken = pb.Taken(receipt=found.receipt, source=found.source, verified=found.verified, results=results)
    return pb.Answer(tag=tag, taken=taken)


def _result(result: Result) -> pb.Result:
    return pb.Result(
        device=result.device,
        accepted=result.accepted,
        standing=result.standing,
        effect=result.effect,
        why=result.why,
        journal=result.journal,
        milliseconds=result.milliseconds or 0.0,
        failed=result.failed,
        step=result.step,
        detail=result.detail,
    )


def _peer_text(peer: str) -> str:
    """The address in gRPC's ``ipv4:192.0.2.7:35940`` or ``ipv6:%5B2001:db8::7%5D:35940``."""
    kind, _, rest = peer.partition(":")
    host = rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return host.removeprefix("::ffff:") if kind in ("ipv4", "ipv6") else ""
