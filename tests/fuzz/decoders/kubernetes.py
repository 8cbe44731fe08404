"""What a cluster's API server answers: objects, lists, events of a watch, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from gateway.core.errors import BackendError
from gateway.enforce.kubernetes import objects
from gateway.enforce.kubernetes.client import _change, declared
from tests.fuzz.decoders.shape import Attempt, Target

WANTED = {"kind": "KubeArmorHostPolicy", "spec": {"file": {"matchPaths": [{"path": "/a"}]}, "action": "Block"}}


def _answers() -> Attempt:
    """A list, an event of a watch, a refusal: an answer is judged like an error is, and may lie in every field."""

    def attempt(data: bytes) -> None:
        with suppress(BackendError):
            found = objects.decode(data)
            _object(found)
            for status in (200, 404, 409, 500):
                refused = declared(status, found, "list")
                assert len(str(refused)) < 1_000
            items = found.get("items")
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict):
                    _object(item)
        with suppress(BackendError):
            change = _change(objects.decode(data), "watch")
            assert change.key is None or change.key.name
            _object(change.object)

    return attempt


def _object(thing: objects.Object) -> None:
    """What the ledger asks of every object that it is given."""
    with suppress(BackendError):
        assert objects.key_of(thing).name
    for text in (objects.version_of(thing), objects.uid_of(thing), objects.told_by_kubearmor(thing)):
        assert isinstance(text, str)
    assert isinstance(objects.generation_of(thing), int)
    mine = objects.owned(thing, "edge")
    assert objects.is_ours(mine, "edge")
    assert not objects.is_ours(objects.owned(objects.lean(thing), "edge"), "other")
    # What is stored may nest as deep as it likes, what is wanted is ours.
    assert objects.covers(thing, WANTED) in {True, False}
    assert objects.extras(thing, WANTED).keys() <= thing.keys()


def _answer_seeds() -> Sequence[bytes]:
    metadata = {
        "name": "60-key",
        "uid": "u-1",
        "resourceVersion": "7",
        "generation": 2,
        "labels": objects.labels_of("edge"),
        "managedFields": [{"manager": "ragate-edge", "operation": "Apply"}],
    }
    spec = {"file": {"matchPaths": [{"path": "/a", "readOnly": True}]}, "action": "Block"}
    stored = {"kind": "KubeArmorHostPolicy", "metadata": metadata, "spec": spec, "status": {"status": "OK"}}
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    causes = [{"reason": "FieldManagerConflict", "field": ".spec.action"}]
    return [
        objects.encode(stored),
        objects.encode({"items": [stored], "metadata": {"resourceVersion": "9", "continue": "more"}}),
        *(
            objects.encode({"type": word, "object": stored})
            for word in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
        ),
        objects.encode({"type": "ERROR", "object": gone}),
        objects.encode({"kind": "Status", "code": 409, "details": {"causes": causes}}),
    ]


ANSWER_WORDS = (
    b'"kind":"KubeArmorPolicy"',
    b'"metadata":{',
    b'"resourceVersion":"',
    b'"labels":{',
    b'"managedFields":[',
    b'"items":[',
    b'"type":"ERROR"',
    b'"type":"BOOKMARK"',
    b'"object":{',
    b'"code":',
    b'"details":{"causes":[',
    b"[[[[[[[[[[[[[[[[",
    b'{"a":{"a":{"a":',
    b"\\ud800",
    b"1e999",
    b"null",
)

TARGETS = (
    Target(
        "kubernetes.answers",
        ("gateway.enforce.kubernetes.objects", "gateway.enforce.kubernetes.client"),
        _answers,
        _answer_seeds,
        ANSWER_WORDS,
    ),
)
