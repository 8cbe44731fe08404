"""The path gate: nftables, table ``inet ragate``.

Rendering of the static baseline, the netlink element path, the two lanes, the guard that repairs damage. No
devices, verdicts or decisions: addresses and profiles only.
"""

from __future__ import annotations

from gateway.enforce.nft.backend import NftBackend, uninstall
from gateway.enforce.nft.chains import ConnectionRate
from gateway.enforce.nft.ruleset import (
    Baseline,
    Endpoint,
    GatedService,
    render_baseline_file,
    render_uninstall,
)

__all__ = [
    "Baseline",
    "ConnectionRate",
    "Endpoint",
    "GatedService",
    "NftBackend",
    "render_baseline_file",
    "render_uninstall",
    "uninstall",
]
