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

from gateway.certs import Mark, ServedTls
from gateway.control.ports import Clock
from gateway.control.reception import Answer, Denied, Reception, Result, Submission
from gateway.core.errors import ConfigError, Refusal
from gateway.core.model import Instant
from gateway.intake.rpc.pb import verdicts_pb2 as pb
from gateway.intake.rpc.tls import Listed, credentials, identity_of

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


class _RevokedError(Exception):
    """The client of a stream has been revoked meanwhile."""


class _Stream:
    """One stream: its client's certificate, and whether that has been revoked since."""

    def __init__(self, client: Listed | None) -> None:
        self.mark: Mark | None = None if client is None else client.mark
        self.revoked = asyncio.Event()

    async def watch(self) -> None:
        """End the stream's tasks once its client is revoked."""
        await self.revoked.wait()
        raise _RevokedError


class RpcDoor:
    """Takes documents on gRPC streams. ``tls``: the door's own from here on; it follows the files while the door
    runs, and a stream outlives renewed files unless its client's certificate has been revoked.

    Counts, for metrics: ``submissions``, ``streams`` open.
    """

    name = "rpc"

    def __init__(
        self,
        listen: Sequence[tuple[str, int]],
        reception: Reception,
        clock: Clock,
        tls: ServedTls,
        settings: RpcSettings = RpcSettings(),
    ) -> None:
        self._listen = listen
        self._reception = reception
        self._clock = clock
        self.tls = tls
        self._settings = settings
        self._open: set[_Stream] = set()
        self.submissions = 0
        self.serving = False  #: whether it takes connections

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return list(self._listen)

    @property
    def streams(self) -> int:
        """Streams open now."""
        return len(self._open)

    def depth(self) -> int:
        """As ``streams``, for metrics."""
        return self.streams

    def state(self) -> str:
        """One line for people."""
        return f"{f'{self.streams} streams open' if self.serving else 'not open'}; {self.tls.state()}"

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
                server.add_secure_port(place, credentials(self.tls))
            except RuntimeError as error:
                raise ConfigError(place, "cannot listen here", "choose another address or port") from error
        await server.start()
        await status.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await status.set("", health_pb2.HealthCheckResponse.SERVING)
        self.tls.changed = self._judge_again
        self.serving = True
        try:
            await self.tls.run()
        finally:
            self.serving = False
            await status.enter_graceful_shutdown()
            await server.stop(settings.stop_seconds)

    # --- one stream -------------------------------------------------------------------------------------

    async def _submit(self, requests: AsyncIterator[pb.Submission | None], context: Context) -> None:
        peer = _peer_text(context.peer())
        client = await self._client(context, peer)
        if self.streams >= self._settings.streams:
            self._reception.turned_away(Refusal.LIMIT, f"{self.streams} streams are open", peer)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open; come back later")
        stream = _Stream(client)
        self._open.add(stream)
        answers: Answers = asyncio.Queue(self._settings.pending)
        revoked = False
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(stream.watch(), name="rpc-watch")
                tasks.create_task(self._read(requests, answers, tasks, client, peer), name="rpc-read")
                while (following := await answers.get()) is not None:
                    tag, task = following
                    await context.write(_answer(tag, await task))
                watch.cancel()
        except* _RevokedError:
            revoked = True
        finally:
            self._open.discard(stream)
        if revoked:
            await self._turn_away(context, peer)

    async def _client(self, context: Context, peer: str) -> Listed | None:
        """Who the client's certificate says it is. A revoked one ends the stream before anything is read."""
        client = identity_of(list((context.auth_context() or {}).get("x509_pem_cert", ())))
        if client is not None and self.tls.revoked(client.mark):
            await self._turn_away(context, peer)
        return client

    async def _turn_away(self, context: Context, peer: str) -> None:
        self._reception.turned_away(Refusal.SOURCE, "TLS: the client certificate is revoked", peer)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the client certificate is revoked")

    def _judge_again(self) -> None:
        """Newer files were taken: who has been revoked by them is not heard any more."""
        for stream in self._open:
            if stream.mark is not None and self.tls.revoked(stream.mark):
                stream.revoked.set()

    async def _read(
        self,
        requests: AsyncIterator[pb.Submission | None],
        answers: Answers,
        tasks: asyncio.TaskGroup,
        client: Listed | None,
        peer: str,
    ) -> None:
        async for request in requests:
            received = self._clock.now()
            self.submissions += 1
            await self._reception.room()
            tag = 0 if request is None else request.tag
            task = tasks.create_task(self._take(request, client, peer, received), name="rpc-take")
            await answers.put((tag, task))
        await answers.put(None)

    async def _take(
        self, request: pb.Submission | None, client: Listed | None, peer: str, received: Instant
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
                    None if client is None else client.identity,
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
