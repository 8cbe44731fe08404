"""KubeArmor's log service as the daemon serves it: three streams, one bounded queue a subscriber.

Seen with the daemon, and modelled: a word that is no filter ends the stream at once and with OK; the answer's
headers come with the first message, so a quiet stream looks as if it were never taken; a subscriber's queue holds
1,000 and drops what is more in silence; messages are said only with ``debug``, and each network alert brings one of
them; equal packets are told once in 10 seconds; a host policy takes the severity, tags and message from the alerts
of every network policy, until a network policy is changed again; a daemon that dies ends every stream with
UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from gateway.kubearmor.pb import events_pb2

QUEUE = 1_000
SUPPRESSED = 10.0

_FILTERS = {"WatchAlerts": {"all", "policy"}, "WatchLogs": {"all", "system"}, "WatchMessages": None}


class Feed:
    """``subscribers`` by method; ``dropped`` what found a full queue; ``matching``: whose policies name alerts."""

    def __init__(self, *, debug: bool = True, host: str = "edge") -> None:
        self.debug = debug
        self.host = host
        self.matching = ""
        self.dropped = 0
        self.requests: list[tuple[str, str]] = []
        self.subscribers: dict[str, list[asyncio.Queue[bytes]]] = {method: [] for method in _FILTERS}
        self._said: dict[tuple[object, ...], float] = {}

    def services(self) -> dict[str, dict[str, Any]]:
        """The handlers of the log service; raw bytes, so that a test can say what no daemon would."""
        return {
            "feeder.LogService": {
                method: grpc.unary_stream_rpc_method_handler(
                    self._watch(method), events_pb2.RequestMessage.FromString, lambda data: data
                )
                for method in _FILTERS
            }
        }

    def _watch(self, method: str) -> Callable[..., AsyncIterator[bytes]]:
        async def watch(request: events_pb2.RequestMessage, _context: object) -> AsyncIterator[bytes]:
            self.requests.append((method, request.Filter))
            allowed = _FILTERS[method]
            if allowed is not None and request.Filter not in allowed:
                return
            queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
            self.subscribers[method].append(queue)
            try:
                while True:
                    yield await queue.get()
            finally:
                self.subscribers[method].remove(queue)

        return watch

    def say(self, method: str, message: Message | bytes) -> None:
        """Put a message into every subscriber's queue."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        for queue in self.subscribers[method]:
            try:
                queue.put_nowait(data)
            except asyncio.QueueFull:
                self.dropped += 1

    def message(self, level: str, text: str) -> None:
        """One of the daemon's own words."""
        if self.debug:
            self.say(
                "WatchMessages", events_pb2.Message(HostName=self.host, Type="Message", Level=level, Message=text)
            )

    def packet(
        self,
        policy: str,
        spec: dict[str, Any],
        source: str,
        *,
        port: int,
        sport: int = 40_000,
        target: str = "10.99.0.1",
        action: str = "Block",
        direction: str = "INGRESS",
        protocol: str = "TCP",
    ) -> None:
        """A packet that a rule of ``policy`` has logged."""
        flow = (source, sport, target, port, protocol, policy)
        now = time.monotonic()
        if now - self._said.get(flow, -SUPPRESSED) < SUPPRESSED:
            return
        self._said[flow] = now
        data = {
            "SourceIP": source,
            "SourcePort": str(sport),
            "DestinationIP": target,
            "DestinationPort": str(port),
            "Protocol": protocol,
        }
        alert = events_pb2.Alert(
            Timestamp=int(time.time()),
            HostName=self.host,
            PolicyName=policy,
            Type="MatchedNetworkPolicy",
            Operation="NetworkFirewall",
            Resource=direction,
            Data=" ".join(f"{key}={value}" for key, value in data.items()),
            Action=action,
            Result="Passed" if action == "Audit" else "Permission denied",
            Enforcer="NetworkPolicyEnforcer",
            EventData=data,
        )
        if self.matching == "network":
            entry = [*spec.get("ingress", []), *spec.get("egress", [])][-1]
            alert.Severity = str(entry.get("severity", spec.get("severity", "")))
            alert.Message = entry.get("message", spec.get("message", ""))
            alert.Tags = ",".join(entry.get("tags", spec.get("tags", [])))
        self.message("DEBUG", "Pushing Telemetry without source")
        self.say("WatchAlerts", alert)
