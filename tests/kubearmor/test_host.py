"""The host policy: what of ours is protected, inside its budget, and what is refused with which reason."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.kubearmor.host import HOST_ENTRIES, Hardening, build_host, check_budget, read_file_rules
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.policies import FileRule, HostPolicy

OURS = Hardening(
    journal="/var/lib/ragate/journal.db", private=("/etc/ragate/keys",), sealed=("/etc/ragate/policies/",)
)


def build(hardening: Hardening) -> HostPolicy | None:
    return build_host(hardening, name="40-host", node="*", generation=3)


def test_journal_and_keys_are_private_and_policies_are_sealed() -> None:
    policy = build(OURS)
    assert policy is not None
    assert [(rule.path, rule.owner_only, rule.read_only, rule.directory) for rule in policy.files] == [
        ("/var/lib/ragate/journal.db", True, False, False),
        ("/var/lib/ragate/journal.db-wal", True, False, False),
        ("/var/lib/ragate/journal.db-shm", True, False, False),
        ("/etc/ragate/keys", True, False, False),
        ("/etc/ragate/policies", False, True, True),
    ]
    assert policy.cost == 4 + 2 + 3


def test_nothing_to_protect_is_no_policy() -> None:
    assert build(Hardening()) is None


def test_the_budget_is_computed_and_kept() -> None:
    many = tuple(f"/srv/{n}/policies" for n in range(50))
    with pytest.raises(DocumentRefused, match=f"take 152 of {HOST_ENTRIES} map entries, 128 are granted"):
        build(Hardening(sealed=many))
    policy = build(Hardening(sealed=many, reserve=HOST_ENTRIES - 152))
    assert policy is not None
    check_budget(policy, 152)
    with pytest.raises(DocumentRefused):
        check_budget(policy, 151)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"file": {"matchPatterns": [{"pattern": "/etc/*"}]}}, "ignores them in silence"),
        ({"capabilities": {"matchCapabilities": []}}, "leaves capabilities of host policies out"),
        ({"syscalls": {}}, "only audits"),
        ({"action": "Allow"}, "whitelist"),
        ({"fille": {}}, "unknown"),
        ({"file": []}, "mapping"),
        ({"file": {"matchPaths": {}}}, "list"),
        ({"file": {"matchPaths": ["x"]}}, "mapping"),
        ({"file": {"matchPaths": [{"path": 3, "readOnly": True}]}}, "text"),
        ({"file": {"matchPaths": [{"path": "/a", "readOnly": "yes"}]}}, "true or false"),
        ({"file": {"matchPaths": [{"path": "/a", "fromSource": []}]}}, "source rules"),
        ({"file": {"matchDirectories": [{"dir": "/a", "recursive": True, "readOnly": True}]}}, "ends with '/'"),
        ({"file": {"matchDirectories": [{"dir": "/a/", "readOnly": True}]}}, "recursive"),
    ],
)
def test_what_would_not_be_enforced_is_refused_with_the_reason(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentRefused, match=reason):
        read_file_rules(spec)


NAMES = st.lists(st.text("abz09._-", min_size=1, max_size=5).filter(lambda n: n not in {".", ".."}), min_size=1)


@settings(max_examples=50)
@given(st.lists(st.tuples(NAMES, st.sampled_from(["private", "frozen", "sealed"])), min_size=1, max_size=5))
def test_what_is_rendered_reads_back(rules: list[tuple[list[str], str]]) -> None:
    files = [
        FileRule(
            "/" + "/".join(names[:8]),
            directory=kind == "sealed",
            read_only=kind != "private",
            owner_only=kind == "private",
        )
        for names, kind in rules
    ]
    policy = HostPolicy(name="h", node="*", generation=1, files=tuple(sorted(files, key=lambda f: f.directory)))
    spec = policy.render()["spec"]
    assert isinstance(spec, dict)
    assert read_file_rules(spec) == policy.files


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["file", "matchPaths", "matchDirectories", "path", "dir", "readOnly", "recursive", "x"]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["file", "action", "tags"]), JSON))
def test_only_the_declared_refusal_escapes(spec: dict[str, Any]) -> None:
    with contextlib.suppress(DocumentRefused):
        read_file_rules(spec)
