"""The relay: a userspace TCP gate for hosts where nobody may touch nftables.

A client connects to the relay instead of the service; the relay judges its address and passes bytes on. What
lives here: the table of admitted addresses, the connections, their limits. What must not: devices, verdicts,
deciding. Nothing outlives the process: its death ends every connection at once, and it begins shut.
"""

from gateway.enforce.relay.backend import RelayBackend
from gateway.enforce.relay.rate import ConnectionRate
from gateway.enforce.relay.settings import Network, RelayConnection, RelayRoute, RelaySettings

__all__ = ["ConnectionRate", "Network", "RelayBackend", "RelayConnection", "RelayRoute", "RelaySettings"]
