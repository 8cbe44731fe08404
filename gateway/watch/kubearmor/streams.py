"""The three streams of KubeArmor's log service: method, filter, reader.

What must not live here: connections, limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.kubearmor.alerts import RuntimeAlert, read_alert, read_log, read_message
from gateway.kubearmor.pb import events_pb2


class Stream(NamedTuple):
    """One stream. ``request`` carries the filter: the daemon ends a stream at once, and with OK, for a word that it
    does not know, so an empty filter hears nothing (``KubeArmor/feeder/logServer.go``, interface 1.8)."""

    name: str
    method: str
    request: bytes
    read: Callable[[bytes], RuntimeAlert | None]


def _stream(name: str, method: str, word: str, read: Callable[[bytes], RuntimeAlert | None]) -> Stream:
    request = events_pb2.RequestMessage(Filter=word).SerializeToString()
    return Stream(name, f"/feeder.LogService/{method}", request, read)


#: Alerts; logs, because a denial whose policy was overwritten in the daemon's table comes as one; and the daemon's
#: own words, the only way in which it tells that it could not apply a network policy (with ``debug: true``).
STREAMS: Mapping[str, Stream] = {
    stream.name: stream
    for stream in (
        _stream("alerts", "WatchAlerts", "all", read_alert),
        _stream("logs", "WatchLogs", "system", read_log),
        _stream("messages", "WatchMessages", "all", read_message),
    )
}
