"""``python -m tests.chaos.kubearmor FOLDER``: the fake KubeArmor as a process of its own, which can be killed.

As the daemon does, it keeps one file's worth of every policy and restores them when it starts again. What it has in
memory is written to ``state.json`` after every change.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from gateway.kubearmor.pb.policy_pb2 import PolicyStatus
from tests.fakes.kubearmor import FakeKubeArmor

PORT, HEALTH = 32_767, 32_766


class KeptKubeArmor(FakeKubeArmor):
    """A fake whose files outlive it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.port, self.health_port = PORT, HEALTH
        self._folder = folder
        kept = folder / "disk.json"
        if kept.exists():
            self.disk = {name: (kind, spec) for name, (kind, spec) in json.loads(kept.read_text()).items()}

    def _take(self, kind: str, data: bytes) -> PolicyStatus | None:
        status = super()._take(kind, data)
        self._write("disk.json", self.disk)
        self._write("state.json", self.stored)
        return status

    async def _restore(self) -> None:
        await super()._restore()
        self._write("state.json", self.stored)

    def _write(self, name: str, content: object) -> None:
        fresh = self._folder / f"{name}.new"
        fresh.write_text(json.dumps(content))
        os.replace(fresh, self._folder / name)


async def main(folder: Path) -> None:
    """Serve until killed."""
    await KeptKubeArmor(folder).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
