"""The settings of the Kubernetes hand, each a limit with unit and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NAME = "kubernetes"


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """What is ours in a cluster, and how gently its API is treated. Times in seconds, sizes in bytes."""

    target: str
    """The target's name; part of our network policy's name."""
    owner: str
    """The value of the label that says whose an object is. Two gateways at one cluster need two."""
    namespace: str
    """Where documents for single containers go."""
    nodes: Mapping[str, str] | None = None
    """Labels of the nodes that serve gated services; None: no network policy of our own is kept."""
    timeout: float = 30.0
    """One request; the API server's own limit is 60 s, and it answers in milliseconds."""
    watch: float = 240.0
    """How long one watch is asked for; the server would end it after 30 to 60 minutes by itself."""
    quiet: float = 90.0
    """A watch says nothing for this long: bookmarks come about once a minute, so the connection is dead."""
    pace: float = 1.0
    """Least time between two rounds of writing: a network policy makes every node lay all its rules anew."""
    share: float = 0.1
    """Greatest part of the time spent writing; rest follows work accordingly."""
    retry_min: float = 0.5
    retry_max: float = 30.0
    """Pauses after trouble, doubled from the one to the other, jittered."""
    again: float = 60.0
    """Until something that was forbidden, missing or somebody else's is tried again: an administrator mends it."""
    invalid: float = 600.0
    """Until a document that the API refused as invalid is tried again: only another schema could mend it."""
    throttled_max: float = 120.0
    """The longest ``Retry-After`` that is believed."""
    storm_free: int = 3
    """Repairs of one object within ``storm_window`` that are done at once; each further one waits twice as long."""
    storm_window: float = 600.0
    storm_max: float = 300.0
    """The longest wait of a repair."""
    page: int = 50
    """Objects in one page of a list: of the largest that a cluster stores, 75 MB."""
    answer: int = 96 * 1024 * 1024
    """The longest answer that is read."""
    line: int = 4 * 1024 * 1024
    """The longest event of a watch: the store takes 1.5 MiB, JSON escapes and managed fields beside it."""
    largest: int = 1_400_000
    """The largest object that is sent: etcd takes requests of 1.5 MiB by default, managed fields included."""
