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
from gateway.enforce.nft.sources import Anchor, sets_in_use

__all__ = [
    "Anchor",
    "Baseline",
    "ConnectionRate",
    "Endpoint",
    "GatedService",
    "NftBackend",
    "render_baseline_file",
    "render_uninstall",
    "sets_in_use",
    "uninstall",
]
