"""What must be known of a host before anything said about KubeArmor counts: that nftables works for it, and that it
has a security module to work with.

What must not live here: sending, judging policies.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.errors import BackendError
from gateway.enforce.kubearmor.lookup import Aside
from gateway.enforce.kubearmor.lsm import Lsm
from gateway.enforce.kubearmor.settings import Tables
from gateway.enforce.kubearmor.tables import TableReader
from gateway.kubearmor.readback import FAMILIES

_NO_TABLE = (
    "KubeArmor has no nftables table here: its network enforcer did not start (nft missing, not root), or it runs"
    " in another network namespace; a network policy could end the daemon and is withheld"
)


class Evidence:
    """``record`` reads KubeArmor's record of its security module; it may block."""

    def __init__(self, tables: Tables, reader: TableReader, record: Callable[[], Lsm], aside: Aside) -> None:
        self._tables = tables
        self._reader = reader
        self._record = record
        self._aside = aside
        self._lsm: Lsm | None = None

    def begin(self) -> None:
        """Another daemon may run from here on."""
        self._lsm = None

    async def lsm(self) -> Lsm:
        """Return what is known of the security module. One that was seen is there as long as the daemon runs: some
        hosts clear the folder of the record now and then."""
        if self._lsm is None or not self._lsm.enforcer:
            self._lsm = await self._aside(self._record)
        return self._lsm

    async def nft(self) -> str:
        """Return "" when nftables is known to work for the daemon, else why nothing may be sent."""
        if self._tables is Tables.TRUST:
            return ""
        if self._tables is Tables.NONE:
            return "no evidence that nftables works for KubeArmor: set tables to read or trust"
        try:
            for family in FAMILIES:
                if await self._reader.read(family) is None:
                    return _NO_TABLE
        except BackendError as error:
            return f"no evidence that nftables works for KubeArmor: {error.what}"
        return ""
