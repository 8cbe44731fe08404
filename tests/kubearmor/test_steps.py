"""Which events turn the documents that a daemon has into those that it should have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import Document
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.parse import parse
from gateway.kubearmor.policies import EventType
from gateway.kubearmor.steps import Step, steps

OWN = "50-network-gateway-00000000"


def container(name: str, directory: str, *, flag: str = "recursive", app: str = "app$") -> Document:
    return document(f"""
kind: KubeArmorPolicy
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{kubearmor.io/container.name: {app}}}}}
  file: {{matchDirectories: [{{dir: {directory}, {flag}: true}}]}}
  action: Block
""")


def network(name: str, *actions: str) -> Document:
    entries = ", ".join(
        f'{{action: {each}, from: [{{ipBlock: {{cidr: "10.0.0.0/8"}}}}, {{ipBlock: {{cidr: "fd00::/8"}}}}]}}'
        for each in actions
    )
    return document(f"""
kind: KubeArmorNetworkPolicy
metadata: {{name: {name}}}
spec: {{nodeSelector: {{matchLabels: {{kubearmor.io/hostname: "*"}}}}, ingress: [{entries}], action: Block}}
""")


def document(text: str) -> Document:
    (found,) = parse(f"apiVersion: security.kubearmor.com/v1{text}".encode(), "x.yaml", Notes(Mode.VM))
    return found


def plain(found: Sequence[Step]) -> list[str]:
    return [("+" if step.event is EventType.ADDED else "-") + step.name for step in found]


def by_name(*documents: Document) -> dict[str, Document | None]:
    return {each.name: each for each in documents}


A, B = container("20-a", "/srv/a/"), container("30-b", "/srv/b/")


def test_nothing_to_do() -> None:
    assert steps({}, ()) == ()
    assert steps(by_name(A, B), (A, B)) == ()
    assert steps(by_name(A), (container("20-a", "/srv/a/"),)) == ()


def test_what_comes_goes_and_changes_with_the_rest_left_alone() -> None:
    assert plain(steps(by_name(A), (A, B))) == ["+30-b"]
    assert plain(steps(by_name(B, A), (A,))) == ["-30-b"]
    assert plain(steps(by_name(A, B), (A, container("30-b", "/srv/c/")))) == ["+30-b"]
    assert plain(steps(by_name(A, B), (A, B), unsure={"20-a"})) == ["+20-a"]


def test_what_denies_comes_before_what_stops_denying() -> None:
    wide = container("60-site-feeds", "/srv/feeds/")
    full = container("60-feeds", "/srv/feeds/cam-1/")
    assert plain(steps(by_name(full), (wide,))) == ["+60-site-feeds", "-60-feeds"]
    assert plain(steps(by_name(wide), (full,))) == ["+60-feeds", "-60-site-feeds"]


def test_another_selector_takes_the_old_one_away_by_its_own() -> None:
    elsewhere = container("20-a", "/srv/a/", app="other$")
    found = steps(by_name(A, B), (elsewhere, B))
    assert plain(found) == ["-20-a", "+20-a"]
    assert found[0].document is A
    assert found[1].document is elsewhere


def test_a_contradiction_that_came_too_early_is_taken_anew_and_nothing_else() -> None:
    closed = container("60-quarantined", "/srv/feeds/")
    loose = container("55-maintained", "/srv/feeds/", flag="readOnly")
    other = container("70-other", "/srv/other/")
    found = steps(by_name(closed, other), (loose, closed, other))
    assert plain(found) == ["+55-maintained", "-60-quarantined", "+60-quarantined"]
    assert plain(steps(by_name(loose), (loose, closed))) == ["+60-quarantined"]


def test_our_own_network_policy_stays_behind_what_comes_before_it() -> None:
    standing = {OWN: None}
    early, late = network("40-network-x", "Allow"), network("60-network-x", "Block")
    assert plain(steps(standing, (early,), own=OWN)) == ["+40-network-x", f"-{OWN}", f"+{OWN}"]
    assert plain(steps(standing, (late,), own=OWN)) == ["+60-network-x"]
    assert plain(steps({**by_name(late), OWN: None}, (late,), own=OWN)) == ["-60-network-x", "+60-network-x"]
    assert plain(steps({OWN: None, **by_name(late)}, (), own=OWN)) == ["-60-network-x"]


def test_network_policies_that_only_block_may_stand_in_any_order() -> None:
    one, two = network("60-x", "Block"), network("70-x", "Block", "Block")
    assert steps(by_name(two, one), (one, two)) == ()
    mixed = network("70-x", "Block", "Allow")
    assert plain(steps(by_name(mixed, one), (one, mixed))) == ["-70-x", "+70-x"]


# --- against a daemon -----------------------------------------------------------------------------------------

NAMES = [f"{order}-x" for order in range(10, 18)]
made = st.builds(
    container,
    st.sampled_from(NAMES),
    st.sampled_from(["/srv/a/", "/srv/b/"]),
    flag=st.sampled_from(["recursive", "readOnly"]),
    app=st.sampled_from(["app$", "other$"]),
)
sets = st.lists(made, max_size=6, unique_by=lambda each: each.name)


@given(st.permutations(range(6)), sets, sets)
def test_a_daemon_ends_with_what_is_wanted_in_an_order_that_means_it(
    shuffled: list[int], before: list[Document], after: list[Document]
) -> None:
    before = [before[number] for number in shuffled if number < len(before)]
    held: dict[str, Document | None] = by_name(*before)
    for event, name, sent in steps(held.copy(), after):
        assert sent is not None
        if event is EventType.DELETED:
            was = held.pop(name)
            assert was is not None
            assert _selector(sent) == _selector(was)  # or the daemon would not find it
        else:
            held[name] = sent
    assert held == by_name(*after)
    places = {name: number for number, name in enumerate(held)}
    for one, other in combinations(sorted(after, key=lambda each: each.name), 2):
        if _directory(one) == _directory(other) and _flags(one) != _flags(other):
            assert places[one.name] < places[other.name]
    assert steps(held, after) == ()


def _selector(each: Document) -> object:
    return each.body.selector  # type: ignore[union-attr]


def _directory(each: Document) -> str:
    return each.body.file.directories[0].directory  # type: ignore[union-attr]


def _flags(each: Document) -> object:
    rule = each.body.file.directories[0]  # type: ignore[union-attr]
    return rule.read_only, rule.recursive
