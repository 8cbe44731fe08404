"""The path gate before and after the service: the baseline for boot, and removal of every trace."""

from __future__ import annotations

import asyncio

from gateway.app import build
from gateway.app.clock import SystemClock
from gateway.config import Config
from gateway.enforce import nft


def baseline_text(config: Config) -> str:
    """The nftables baseline to load at boot, before the network comes up: default deny and the corridor."""
    return nft.render_baseline_file(build.baseline(config), build.known(config))


def uninstall(config: Config) -> list[str]:
    """Remove what enforcement left on this host; one line for each thing removed. Raises ``BackendError``."""
    nft.uninstall()
    lines = ["nftables: table inet ragate is gone; the gated services are now open to everybody"]
    layer = build.kubearmor(config, SystemClock())
    if layer is not None:
        asyncio.run(layer.withdraw())
        lines.append(f"kubearmor: asked to delete our policies: {layer.state().get('detail', '')}")
    return [
        *lines,
        f"kept: the journal {config.journal}; delete it by hand when nobody needs to ask any more",
    ]
