"""A real ``ragate agent``: its file, its process, and what it logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gateway.certs import Folder, Role
from gateway.simulate.child import NO_NAMESPACE, command

PATIENCE = 90.0


class AgentProcess:
    """One ``ragate agent`` at a time, in the calling thread's network namespace, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        certificates: Folder,
        gateway: str,
        *,
        name: str = "app",
        **settings: Any,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "agent.yaml"
        self.log_file = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        document = {
            "gateway": gateway,
            "certificates": {
                "authority": str(certificates.authority),
                "certificate": str(certificates.certificate(Role.AGENT, name)),
                "key": str(certificates.key(Role.AGENT, name)),
                "revoked": str(certificates.revocations),
            },
            "state": "state",
            **settings,
        }
        self.config.write_text(yaml.safe_dump(document))

    def start(self, namespace: int = NO_NAMESPACE) -> None:
        """Start it, in the namespace of a descriptor if one is given; it is not attached yet when this returns."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command([sys.executable, "-m", "gateway", "agent", "--config", str(self.config)], namespace),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if namespace == NO_NAMESPACE else (namespace,),
                env=os.environ | {"PYTHONWARNINGS": "default"},
            )

    def stop(self) -> int:
        """End it in order; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(number)
        return process.wait(PATIENCE)

    @contextmanager
    def running(self) -> Iterator[AgentProcess]:
        """For as long as this lasts."""
        self.start()
        try:
            yield self
        finally:
            if self.process is not None:
                code = self.stop()
                assert code == 0, f"exit code {code}:\n{self.log}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def status(self) -> dict[str, Any]:
        """What it says of its link."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "state" / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found
