"""Custom resources as JSON: where they are served, whose they are, and how a stored one differs from a wanted one.

Pure. Facts are of the Kubernetes API concepts (kubernetes.io/docs/reference/using-api): "Server-Side Apply" for
managers and their fields, "API Concepts" for versions of objects.
What must not live here: requests, what follows from a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from gateway.core.errors import BackendError
from gateway.enforce.kubernetes.settings import NAME
from gateway.kubearmor.documents import ClusterDocument, ContainerDocument, HostDocument, NetworkDocument
from gateway.kubearmor.vocabulary import API_VERSION

#: Labels of everything that is ours. The second one's value is the owner.
MANAGED_BY, OWNER = "app.kubernetes.io/managed-by", "ragate/owner"
US = "ragate"

Object = dict[str, Any]


class Kind(Enum):
    """The kinds of policy, by their name in the path of a request."""

    CONTAINER = "kubearmorpolicies"
    HOST = "kubearmorhostpolicies"
    NETWORK = "kubearmornetworkpolicies"
    CLUSTER = "kubearmorclusterpolicies"

    __hash__ = object.__hash__

    @property
    def word(self) -> str:
        """The kind as an object names it."""
        return _WORDS[self]

    @property
    def namespaced(self) -> bool:
        """Whether its objects live in namespaces (``scope`` in KubeArmor's ``deployments/CRD``)."""
        return self is Kind.CONTAINER


_WORDS = {
    Kind.CONTAINER: ContainerDocument.kind,
    Kind.HOST: HostDocument.kind,
    Kind.NETWORK: NetworkDocument.kind,
    Kind.CLUSTER: ClusterDocument.kind,
}
_KINDS = {word: kind for kind, word in _WORDS.items()}


class Key(NamedTuple):
    """One object of a target; all namespaced ones of a target share a namespace."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.word} {self.name}"


def key_of(thing: Mapping[str, Any]) -> Key:
    """Return which object this is. Raises ``BackendError`` for what is none of ours by kind or has no name."""
    word, name = text_of(thing.get("kind")), text_of(_metadata(thing).get("name"))
    kind = _KINDS.get(word)
    if kind is None or not name:
        raise BackendError(NAME, f"an object of kind {word[:64]!r} without use", transient=True)
    return Key(kind, name)


def collection(kind: Kind, namespace: str) -> str:
    """Return the path under which a kind's objects are served."""
    where = f"namespaces/{namespace}/" if kind.namespaced else ""
    return f"/apis/{API_VERSION}/{where}{kind.value}"


def _metadata(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    found = thing.get("metadata")
    return found if isinstance(found, dict) else {}


def text_of(value: object) -> str:
    """A text, or "" for anything else: the API server's JSON may be anything, and as deep as it likes."""
    return value if isinstance(value, str) else ""


def owned(thing: Mapping[str, Any], owner: str) -> Object:
    """Return an object to be applied, with the labels that say whose it is."""
    metadata = dict(_metadata(thing))
    labels = metadata.get("labels")
    metadata["labels"] = {**(labels if isinstance(labels, dict) else {}), **labels_of(owner)}
    return {**thing, "metadata": metadata}


def labels_of(owner: str) -> dict[str, str]:
    """The labels of what is ours."""
    return {MANAGED_BY: US, OWNER: owner}


def selector(owner: str) -> str:
    """What a list or watch of ours asks for."""
    return ",".join(f"{key}={value}" for key, value in labels_of(owner).items())


def manager(owner: str) -> str:
    """Our field manager: another gateway's is another, so that neither takes the other's fields unseen."""
    return f"{US}-{owner}"


def is_ours(thing: Mapping[str, Any], owner: str) -> bool:
    """Whether an object is ours: by its labels, or because we applied it before somebody took them away."""
    labels = _metadata(thing).get("labels")
    if isinstance(labels, dict) and all(labels.get(key) == value for key, value in labels_of(owner).items()):
        return True
    entries = _metadata(thing).get("managedFields")
    return isinstance(entries, list) and any(
        isinstance(each, dict) and each.get("manager") == manager(owner) and each.get("operation") == "Apply"
        for each in entries
    )


def uid_of(thing: Mapping[str, Any]) -> str:
    """Which life of an object this is: a new one of the same name has another."""
    return text_of(_metadata(thing).get("uid"))


def generation_of(thing: Mapping[str, Any]) -> int:
    """How often its spec has changed."""
    found = _metadata(thing).get("generation")
    return found if isinstance(found, int) else 0


def version_of(thing: Mapping[str, Any]) -> str:
    """Its resource version: opaque, and the point from which a watch goes on."""
    return text_of(_metadata(thing).get("resourceVersion"))


def lean(thing: Mapping[str, Any]) -> Object:
    """Return an object without what is of no use once it is known: managed fields are half of a small one."""
    metadata = {key: value for key, value in _metadata(thing).items() if key != "managedFields"}
    return {**thing, "metadata": metadata}


def covers(stored: object, wanted: object) -> bool:
    """Whether everything that is wanted is stored; more may be."""
    if isinstance(wanted, Mapping):
        return isinstance(stored, Mapping) and all(
            key in stored and covers(stored[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)) and isinstance(stored, list):
        # A list without keys is one value to the API: set as a whole, owned as a whole.
        return len(stored) == len(wanted) and all(map(covers, stored, wanted))
    return stored == wanted


def extras(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return a merge patch that takes away what is stored beside the wanted; empty: there is nothing.

    Fields inside lists are not looked at: applying the list has replaced it as a whole.
    """
    found: dict[str, Any] = {}
    for key, value in stored.items():
        if key not in wanted:
            found[key] = None
        elif isinstance(value, dict) and isinstance(wanted[key], Mapping):
            below = extras(value, wanted[key])
            if below:
                found[key] = below
    return found


def told_by_kubearmor(thing: Mapping[str, Any]) -> str:
    """What KubeArmor itself said of an object in ``.status.status``; "" when nothing.

    No released KubeArmor writes it (interface 1.9), and a word in it is shown, not believed.
    """
    status = thing.get("status")
    return text_of(status.get("status") if isinstance(status, dict) else None)[:64]


def encode(thing: Mapping[str, Any]) -> bytes:
    """Return an object as JSON, which is YAML: the body of a server-side apply."""
    return msgspec.json.encode(thing, order="deterministic")


def decode(data: bytes | bytearray) -> Object:
    """Return a JSON mapping. Raises ``BackendError`` for anything else."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackendError(NAME, f"the API server sent no JSON: {str(error)[:80]}", transient=True) from error
    if not isinstance(found, dict):
        raise BackendError(NAME, "the API server sent JSON that is no mapping", transient=True)
    return found
