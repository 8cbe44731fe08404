"""The path gate before and after the service: the baseline for boot, and removal of every trace."""

from __future__ import annotations

import asyncio

from gateway.app import clusters as clustering
from gateway.app.clock import SystemClock
from gateway.app.parts import gates, kubearmor
from gateway.config import Config
from gateway.core.errors import ConfigError
from gateway.enforce import nft


def baseline_text(config: Config) -> str:
    """The nftables baseline to load at boot, before the network comes up: default deny and the corridor.

    Raises ``ConfigError`` for a path gate that is a process: before it runs, nothing is carried.
    """
    if config.target.path_gate != "nft":
        what = f"target {config.target.name}: path_gate {config.target.path_gate} has no nftables baseline"
        raise ConfigError(str(config.path), what, "load nothing at boot, or use path_gate: nft")
    return nft.render_baseline_file(gates.baseline(config), gates.known(config), gates.anchors(config))


def uninstall(config: Config) -> list[str]:
    """Remove what enforcement left on this host; one line for each thing removed. Raises ``BackendError``."""
    if config.target.path_gate == "nft":
        nft.uninstall()
        lines = ["nftables: table inet ragate is gone; the gated services are now open to everybody"]
    else:
        # Also without the rights that nftables asks for: a relay leaves nothing behind when its process has ended.
        lines = [f"{config.target.path_gate}: ended with the service, nothing stays behind"]
    layer = kubearmor.advisory(config, SystemClock())
    if layer is not None:
        # KubeArmor does not tell its network policies: they are asked away by their names.
        layer.declare_documents(
            (), kubearmor.renderer(config.library, config.book, config.target.name).networks(config.target.name)
        )
        asyncio.run(layer.withdraw())
        lines.append(f"kubearmor: asked to delete our policies: {layer.state().get('detail', '')}")
    for name, hand in clustering.make(config, SystemClock(), lambda _: None).items():
        asyncio.run(hand.withdraw())
        lines.append(f"kubernetes: target {name}: everything of ours was deleted from the cluster")
    return [
        *lines,
        f"kept: the journal {config.journal}; delete it by hand when nobody needs to ask any more",
    ]
