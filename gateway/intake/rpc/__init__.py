"""The gRPC door: results posted on long-lived streams, by the same rules as over REST.

What lives here: TLS credentials, streams within limits, the messages of the door. What must not: reading documents,
deciding anything about a device.
"""

from __future__ import annotations

from gateway.intake.rpc.door import RpcDoor, RpcSettings

__all__ = ["RpcDoor", "RpcSettings"]
