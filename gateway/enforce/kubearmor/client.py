"""One connection to a KubeArmor daemon: its calls with a deadline each, its errors as declared ones.

What must not live here: when to call, what to send.
"""

from __future__ import annotations

from enum import Enum

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2

from gateway.core.errors import BackendError
from gateway.enforce.kubearmor.settings import KubeArmorSettings
from gateway.kubearmor.names import Kind
from gateway.kubearmor.pb import policy_pb2

NAME = "kubearmor"

#: Full method names (interface 1.1); the stubs are these lines.
CONTAINER_POLICY = "/policy.PolicyService/containerPolicy"
HOST_POLICY = "/policy.PolicyService/hostPolicy"
NETWORK_POLICY = "/policy.PolicyService/networkPolicy"
PROBE = "/policy.ProbeService/getProbeData"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

#: What must say SERVING before anything is sent.
SERVICES = ("policy.PolicyService", "policy.ProbeService")

_METHODS = {Kind.HOST: HOST_POLICY, Kind.NETWORK: NETWORK_POLICY, Kind.CONTAINER: CONTAINER_POLICY}
_MAX_DETAIL = 160


class Trouble(Enum):
    """What a failed call means."""

    ABSENT = "absent"  # nothing listens there
    SLOW = "slow"  # listening, no answer in time: starting, or busy
    KUBERNETES = "kubernetes"  # the service is not served: Kubernetes mode takes policies as resources
    CRASHED = "crashed"  # failed after a policy was sent: the daemon may have died of it
    REFUSED = "refused"  # another answer of the library


class DaemonError(BackendError):
    """A call failed. Nothing is known about what it asked for."""

    def __init__(self, trouble: Trouble, what: str) -> None:
        super().__init__(NAME, what, transient=trouble is not Trouble.KUBERNETES)
        self.trouble = trouble


_TROUBLES = {
    grpc.StatusCode.UNAVAILABLE: Trouble.ABSENT,
    grpc.StatusCode.DEADLINE_EXCEEDED: Trouble.SLOW,
    grpc.StatusCode.UNIMPLEMENTED: Trouble.KUBERNETES,
}


def _declared(error: grpc.aio.AioRpcError, call: str, *, sending: bool) -> DaemonError:
    code = error.code()
    trouble = _TROUBLES.get(code, Trouble.REFUSED)
    if sending and trouble is not Trouble.KUBERNETES:
        trouble = Trouble.CRASHED
    detail = (error.details() or "").strip()[:_MAX_DETAIL]
    return DaemonError(trouble, f"{call}: {code.name}" + (f": {detail}" if detail else ""))


def _channel(address: str, settings: KubeArmorSettings) -> grpc.aio.Channel:
    """A plaintext channel on a connection of its own.

    No client keepalive: KubeArmor keeps the library's least interval of 5 minutes and closes the connection of a
    client that pings more often (interface 1.8). No transparent retry: one call is one sending.
    """
    options = [
        ("grpc.max_receive_message_length", settings.max_receive),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.aio.insecure_channel(address, options=options)


class Daemon:
    """One connection; close it in the end. Only one call at a time (interface 1.4): the caller sees to that."""

    def __init__(self, settings: KubeArmorSettings) -> None:
        self._settings = settings
        self._channel = _channel(settings.address, settings)
        self._health = None if settings.health is None else _channel(settings.health, settings)

    async def serving(self) -> str:
        """Return "" when every needed service says SERVING, else what is missing. Raises ``DaemonError``."""
        if self._health is None:
            return ""
        check = self._health.unary_unary(
            HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        for service in SERVICES:
            try:
                reply = await check(
                    health_pb2.HealthCheckRequest(service=service), timeout=self._settings.rpc_timeout
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return f"{service} is not registered: starting, or in Kubernetes mode"
                raise _declared(error, "health", sending=False) from error
            if reply.status != health_pb2.HealthCheckResponse.SERVING:
                return f"{service} is not serving"
        return ""

    async def probe(self) -> policy_pb2.ProbeResponse:
        """Ask what the daemon has in memory. Raises ``DaemonError``."""
        call = self._channel.unary_unary(
            PROBE,
            request_serializer=empty_pb2.Empty.SerializeToString,
            response_deserializer=policy_pb2.ProbeResponse.FromString,
        )
        try:
            reply: policy_pb2.ProbeResponse = await call(empty_pb2.Empty(), timeout=self._settings.rpc_timeout)
        except grpc.aio.AioRpcError as error:
            raise _declared(error, "probe", sending=False) from error
        return reply

    async def send(self, kind: Kind, event: bytes) -> int:
        """Send one event; returns the ``PolicyStatus``, which says "taken into a list" at best.

        Raises ``DaemonError``; unless the service is not served at all, its trouble is CRASHED: the event may have
        been taken, and the daemon may have died of it.
        """
        call = self._channel.unary_unary(
            _METHODS[kind],
            request_serializer=policy_pb2.policy.SerializeToString,
            response_deserializer=policy_pb2.response.FromString,
        )
        try:
            reply: policy_pb2.response = await call(
                policy_pb2.policy(policy=event), timeout=self._settings.rpc_timeout
            )
        except grpc.aio.AioRpcError as error:
            raise _declared(error, f"{kind.value} policy", sending=True) from error
        return reply.status

    async def lost(self) -> None:
        """Return once the connection that the last call used is gone: a stop or restart of the daemon."""
        while (state := self._channel.get_state()) is grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)

    async def close(self) -> None:
        """End both connections."""
        await self._channel.close()
        if self._health is not None:
            await self._health.close()
