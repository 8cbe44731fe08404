"""Configuration: three YAML files and the key files they name, as frozen values; every mistake with its place.

What lives here: reading and judging ``ragate.yaml``, the inventory and the policy book, findings for an operator,
and inventories to be imported. What must not: building anything from them, or changing a running service.
"""

from __future__ import annotations

from gateway.config.book import load_book
from gateway.config.endpoint import Endpoint
from gateway.config.findings import find_findings
from gateway.config.imports import Import, import_yaml
from gateway.config.inventory import load_inventory
from gateway.config.link_findings import agent_findings
from gateway.config.load import load
from gateway.config.posters import PostDoor, Poster, PostLimits
from gateway.config.remotes import is_agent_file, load_agent
from gateway.config.sediment_db import Consent, import_sediment_db
from gateway.config.templates import check_library, document_targets, namespaces_of, read_library
from gateway.config.values import (
    FEED,
    HOOK,
    SOURCE_ALERTS,
    AgentConfig,
    Api,
    ClusterTarget,
    Config,
    Console,
    Door,
    DoorLimits,
    Hook,
    Inventory,
    KubeArmor,
    OperatorSocket,
    Posting,
    RelayEntry,
    Relying,
    RelyingLimits,
    RemoteTarget,
    Source,
    Target,
    alert_sources,
)

__all__ = [
    "FEED",
    "HOOK",
    "SOURCE_ALERTS",
    "AgentConfig",
    "Api",
    "ClusterTarget",
    "Config",
    "Consent",
    "Console",
    "Door",
    "DoorLimits",
    "Endpoint",
    "Hook",
    "Import",
    "Inventory",
    "KubeArmor",
    "OperatorSocket",
    "PostDoor",
    "PostLimits",
    "Poster",
    "Posting",
    "RelayEntry",
    "Relying",
    "RelyingLimits",
    "RemoteTarget",
    "Source",
    "Target",
    "agent_findings",
    "alert_sources",
    "check_library",
    "document_targets",
    "find_findings",
    "import_sediment_db",
    "import_yaml",
    "is_agent_file",
    "load",
    "load_agent",
    "load_book",
    "load_inventory",
    "namespaces_of",
    "read_library",
]
