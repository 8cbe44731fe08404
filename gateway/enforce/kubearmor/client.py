"""One connection to a KubeArmor daemon: its calls with a deadline each, its errors as declared ones.

What must not live here: when to call, what to send.
"""

from __future__ import annotations

from enum import Enum

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2

from gateway.certs.client import ClientFiles
from gateway.core.errors import BackendError
from gateway.enforce.kubearmor.settings import KubeArmorSettings
from gateway.enforce.kubearmor.transport import NAME, connect
from gateway.kubearmor.names import Kind
from gateway.kubearmor.pb import policy_pb2

__all__ = ["NAME", "Daemon", "DaemonError", "Trouble"]

#: Full method names (interface 1.1); the stubs are these lines.
CONTAINER_POLICY = "/policy.PolicyService/containerPolicy"
HOST_POLICY = "/policy.PolicyService/hostPolicy"
NETWORK_POLICY = "/policy.PolicyService/networkPolicy"
PROBE = "/policy.ProbeService/getProbeData"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

#: What must say SERVING before anything is sent.
SERVICES = ("policy.PolicyService", "policy.ProbeService")

_METHODS = {Kind.HOST: HOST_POLICY, Kind.NETWORK: NETWORK_POLICY, Kind.CONTAINER: CONTAINER_POLICY}
_MAX_DETAIL = 240


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


class Daemon:
    """One daemon; close it in the end. Only one call at a time (interface 1.4): the caller sees to that."""

    def __init__(self, settings: KubeArmorSettings) -> None:
        self._settings = settings
        self._channels: dict[tuple[str, ClientFiles | None], grpc.aio.Channel] = {}

    def _to(self, address: str, tls: ClientFiles | None) -> grpc.aio.Channel:
        """The channel to one of the daemon's addresses, made when it is first needed. Raises ``BackendError``."""
        place = address, tls
        if place not in self._channels:
            self._channels[place] = connect(address, tls, self._settings.max_receive)
        return self._channels[place]

    @property
    def _managing(self) -> grpc.aio.Channel:
        return self._to(self._settings.address, self._settings.tls)

    async def serving(self) -> str:
        """Return "" when every needed service says SERVING, else what is missing. Raises ``BackendError``."""
        if self._settings.health is None:
            return ""
        # The health service has a port of its own, and that is always plaintext (interface 1.1).
        check = self._to(self._settings.health, None).unary_unary(
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
        """Ask what the daemon has in memory. Raises ``BackendError``."""
        call = self._managing.unary_unary(
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
        call = self._managing.unary_unary(
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
        channel = self._managing
        while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)

    async def close(self) -> None:
        """End every connection."""
        for channel in self._channels.values():
            await channel.close()
