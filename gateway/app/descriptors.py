"""Open files: as many as the doors may hold connections, or a word about what is missing."""

from __future__ import annotations

import resource

from gateway.config import Config

RESERVE = 512
"""For everything else: journal, netlink sockets, console, operators, agents, the connections that are passed on."""


def wanted(config: Config) -> int:
    """How many descriptors the configured limits may need at once."""
    number = RESERVE + config.door.limits.connections
    if config.relying is not None:
        number += 2 * config.relying.limits.connections  # each may have one to the app server
    if config.posting.rest is not None:
        number += config.posting.rest.limits.connections + config.posting.rest.limits.silent
    if config.posting.rpc is not None:
        number += config.posting.rpc.limits.connections
    return number


def make_room(number: int) -> str:
    """Let this process open ``number`` files, as far as it may; returns what an operator should know, or ""."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= number:
        if soft != resource.RLIM_INFINITY and soft < number:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        return ""
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (
        f"this process may open {hard} files and the limits of the doors add up to {number}: under many "
        f"connections doors will stand still; set LimitNOFILE={number} in the unit, or lower the doors' limits"
    )
