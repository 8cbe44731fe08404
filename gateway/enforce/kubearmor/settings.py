"""The settings of the KubeArmor hand, each a limit with unit and reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.certs.client import ClientFiles
from gateway.core.errors import ConfigError
from gateway.enforce.kubearmor.transport import is_local, is_unix


class Tables(Enum):
    """How we know that nftables works for KubeArmor on this host. Without knowing, no network policy is sent: the
    first one ends a daemon whose network enforcer did not start (interface 1.4)."""

    READ = "read"  # we share its network namespace and may list its tables: evidence and read-back
    TRUST = "trust"  # the operator vouches for it; accepted is then the most that can be known
    NONE = "none"  # nothing is known: host policy only


@dataclass(frozen=True, slots=True)
class KubeArmorSettings:
    """Where the daemon is and how gently it is treated. Times in seconds, sizes in bytes.

    Raises ``ConfigError`` for an address beyond this host: KubeArmor takes policies from whoever reaches its port,
    or, with TLS, from every certificate of its CA alike, so nothing speaks to it across a network. Likewise for TLS
    files that no connection could be made with.
    """

    address: str = "127.0.0.1:32767"
    """Policies and probe; a Unix socket is ``unix:/PATH``."""
    logs: str | None = None
    """Alerts, logs and messages, where they are served elsewhere than policies; None: at the same address."""
    tls: ClientFiles | None = None
    """For TCP addresses but the health service's, which is always plaintext."""
    health: str | None = "127.0.0.1:32766"
    """None: judged by the probe alone (a management socket has no health service)."""
    tables: Tables = Tables.NONE
    target: str = "gateway"
    """Part of the policies' names."""
    node: str = "*"
    """KubeArmor's name of this host, or any."""
    rpc_timeout: float = 15.0
    """The reply comes after the rules are in the kernel: about 1 s for 100,000 prefixes on two cores."""
    quiet: float = 5.0
    """SERVING is said before the stored policies are restored; what is sent into the restore can be undone."""
    pace: float = 1.0
    """Least time between network policies: each rebuilds the node's rules under the lock that the path gate
    needs."""
    share: float = 0.1
    """Greatest part of the time spent building, sending and checking; rest follows work accordingly."""
    check: float = 4.0
    """Time between read-backs while nothing changes: what somebody else changed is noticed within 10 s."""
    retry_min: float = 1.0
    retry_max: float = 30.0
    crash_backoff: float = 10.0
    """After a call that may have ended the daemon: its service manager waits 10 s before it starts it again."""
    shun: float = 600.0
    """How long a policy is left unsent after several sendings in a row had no answer."""
    max_receive: int = 64 * 1024 * 1024
    """A probe returns every host and container policy in full; the library's 4 MiB are not enough."""
    nft_timeout: float = 5.0
    """Listing a table takes 0.4 s at 50,000 prefixes."""
    nft_output: int = 32 * 1024 * 1024
    """100,000 prefixes are listed in about 8 MB."""

    def __post_init__(self) -> None:
        for where, address in (("address", self.address), ("logs", self.logs), ("health", self.health)):
            if address is not None and not is_local(address):
                raise ConfigError(
                    f"kubearmor.{where}",
                    f"{address!r} is not on this host",
                    "use a loopback address with a port, such as 127.0.0.1:32767, or unix:/path",
                )
        if self.tls is not None:
            if is_unix(self.address) and is_unix(self.events):
                what = "a Unix socket takes no TLS, and nothing else is dialled"
                raise ConfigError("kubearmor.tls", what, "remove tls, or use a loopback address with a port")
            self.tls.check()
        if not 0 < self.share <= 1:
            raise ConfigError("kubearmor.share", f"{self.share} is no share", "use more than 0 and up to 1")

    @property
    def events(self) -> str:
        """Where alerts, logs and messages are served."""
        return self.logs or self.address
