"""Lists KubeArmor's nftables tables through the ``nft`` program: bounded in time and size, off the loop.

KubeArmor lays its tables at start, before any policy (interface 4.1; seen with the daemon itself), so a table that
is there is the evidence that its network enforcer runs in our network namespace. What must not live here: changing
any rule, judging what is read.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import Protocol

from gateway.core.errors import BackendError
from gateway.kubearmor.readback import FAMILIES, TABLE

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_CHUNK = 256 * 1024
_MAX_ERROR = 4096


class TableReader(Protocol):
    """Reads one family's table."""

    async def read(self, family: int) -> bytes | None:
        """Return the listing as nft's JSON, or None when there is no such table. Raises ``BackendError``."""
        ...


class NftTables:
    """Runs ``nft -j list table``. ``timeout`` in seconds, ``limit`` in bytes of output."""

    def __init__(self, timeout: float, limit: int) -> None:
        self._timeout = timeout
        self._limit = limit

    async def read(self, family: int) -> bytes | None:
        """See ``TableReader``."""
        program = shutil.which("nft", path=_PATH)
        if program is None:
            raise BackendError("kubearmor", "the nft program is not installed here", transient=False)
        try:
            async with asyncio.timeout(self._timeout):
                code, out, err = await self._list(program, FAMILIES[family])
        except TimeoutError as error:
            what = f"nft did not list the table within {self._timeout:g} s"
            raise BackendError("kubearmor", what, transient=True) from error
        if code == 0:
            return out
        if "No such file or directory" in err:
            return None
        if "Operation not permitted" in err:
            raise BackendError("kubearmor", "listing nftables needs root or CAP_NET_ADMIN", transient=False)
        raise BackendError("kubearmor", f"nft ended with {code}: {err.strip()[:160]}", transient=True)

    async def _list(self, program: str, family: str) -> tuple[int, bytes, str]:
        process = await asyncio.create_subprocess_exec(
            program,
            "-j",
            "list",
            "table",
            family,
            TABLE,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            out, err = await asyncio.gather(
                self._bounded(process.stdout, self._limit), self._bounded(process.stderr, _MAX_ERROR)
            )
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return code, out, err.decode(errors="replace")

    @staticmethod
    async def _bounded(stream: asyncio.StreamReader, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while chunk := await stream.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise BackendError("kubearmor", f"nft printed more than {limit} bytes", transient=False)
            parts.append(chunk)
        return b"".join(parts)
