"""Whether what is read back is what was sent, whatever the daemon has filled in."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from gateway.kubearmor.content import normal

SENT: dict[str, Any] = {
    "nodeSelector": {"matchLabels": {"kubearmor.io/hostname": "*"}},
    "file": {
        "matchPaths": [{"path": "/a", "ownerOnly": True}, {"path": "/b", "action": "Audit", "tags": ["own"]}],
        "matchDirectories": [{"dir": "/c/", "recursive": True, "pts": False}],
        "severity": 3,
    },
    "network": {"matchProtocols": [{"protocol": "tcp, udp"}]},
    "severity": 8,
    "tags": ["RAGATE", "gen=4"],
    "message": "m",
    "action": "block",
}
OWN = {"severity": 8, "tags": ["RAGATE", "gen=4"], "message": "m", "action": "Block"}
SHOWN: dict[str, Any] = {
    "nodeSelector": {"matchLabels": {"kubearmor.io/hostname": "*"}, "identities": ["kubearmor.io/hostname=*"]},
    "process": {},
    "file": {
        "matchPaths": [
            {**OWN, "path": "/a", "ownerOnly": True, "severity": 3},
            {**OWN, "path": "/b", "action": "Audit", "tags": ["own"], "severity": 3},
        ],
        "matchDirectories": [{**OWN, "dir": "/c/", "recursive": True, "pts": False, "severity": 3}],
        "severity": 3,
    },
    "network": {"matchProtocols": [{**OWN, "protocol": "tcp"}, {**OWN, "protocol": "udp"}]},
    "capabilities": {},
    "syscalls": {},
    "device": {},
    **OWN,
}


def test_what_the_daemon_fills_in_makes_no_difference() -> None:
    assert normal(SENT) == normal(SHOWN)
    turned = copy.deepcopy(SHOWN)
    turned["network"]["matchProtocols"].reverse()
    turned["file"]["matchPaths"].reverse()
    assert normal(turned) == normal(SENT)


def _edits() -> list[Any]:
    def edit(*path: Any, to: Any) -> Any:
        changed = copy.deepcopy(SHOWN)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        return changed

    return [
        edit("file", "matchPaths", 0, to=None),
        edit("file", "matchPaths", 0, "action", to="Allow"),
        edit("file", "matchPaths", 0, "path", to="/x"),
        edit("file", "matchPaths", 0, "ownerOnly", to=False),
        edit("file", "matchPaths", 0, "readOnly", to=True),
        edit("file", "matchDirectories", 0, "pts", to=None),
        edit("file", "matchDirectories", 0, "fromSource", to=[{"path": "/bin/sh"}]),
        edit("network", "matchProtocols", 1, to=None),
        edit("capabilities", to={"matchCapabilities": [{"capability": "net_raw"}]}),
        edit("nodeSelector", "matchLabels", to={"kubearmor.io/hostname": "other"}),
        edit("tags", to=["RAGATE", "gen=5"]),
        edit("action", to="Audit"),
    ]


@pytest.mark.parametrize("edited", _edits())
def test_every_edit_makes_one(edited: dict[str, Any]) -> None:
    assert normal(edited) != normal(SENT)


@pytest.mark.parametrize("spec", [{}, {"file": None}, {"file": {"matchPaths": [7]}}, {"selector": 3, "tags": None}])
def test_anything_has_a_form(spec: dict[str, Any]) -> None:
    assert isinstance(normal(spec), bytes)
