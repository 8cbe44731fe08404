"""The mutator itself: what it changes, what it leaves alone, and that the list is about real mutants."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.listed import FILES, all_mutants, listed
from tests.mutation.operators import mutants
from tests.mutation.run import TESTS


def changes(text: str) -> set[tuple[str, str]]:
    return {(each.before, each.after) for each in mutants("m.py", ast.parse(text))}


@pytest.mark.parametrize(
    ("text", "some"),
    [
        ("def f(a):\n    return a < 3", {("a < 3", "a <= 3"), ("a < 3", "a >= 3"), ("3", "4"), ("3", "2")}),
        ("def f(a):\n    return a is None", {("a is None", "a is not None")}),
        ("def f(a, b):\n    return a and b", {("a and b", "a or b"), ("a and b", "a"), ("a and b", "b")}),
        ("def f(a):\n    return not a", {("not a", "a"), ("return not a", "return None")}),
        ("def f(a):\n    if a:\n        g()\n", {("a", "True"), ("a", "False"), ("a", "not a"), ("g()", "pass")}),
        ("def f(a):\n    return [b for b in a if b.c]", {("b.c", "True"), ("b.c", "False")}),
        ("def f(a):\n    for b in a:\n        g(b)", {("for b in a:", "for b in ():")}),
        ("def f(a, b):\n    g(a, b, key=a)", {("g(a, b, key=a)", "g(b, a, key=a)"), ("key=a", "nothing")}),
        ("def f(a, b):\n    return min(a, b)", {("min", "max")}),
        ("def f(a, b):\n    return a + b", {("a + b", "a - b")}),
        ("def f(a):\n    return 1 if a else 2", {("1 if a else 2", "2 if a else 1")}),
        ("def f():\n    return Standing.HELD", {("Standing.HELD", "Standing.RETIRED")}),
        ("def f():\n    return _TRUSTED", {("_TRUSTED", "_UNKNOWN"), ("_TRUSTED", "_RETIRED")}),
        ("def f():\n    return DENY", {("DENY", "PROBATION"), ("DENY", "ADMITTED")}),
        ("def f():\n    return 'tcp'", {("'tcp'", "'Xtcp'")}),
        ("R: D = {1: (f, g), 2: (g, f)}", {("f", "g"), ("g", "f")}),
    ],
)
def test_small_changes(text: str, some: set[tuple[str, str]]) -> None:
    assert some <= changes(text)


@pytest.mark.parametrize(
    "text",
    [
        '"""A page."""',
        "def f(a: int = ...) -> None:\n    '''Words.'''",
        "import os",
        "A = B | C",
        "T = TypeVar('T')",
        "def f(a):\n    g(f'{a + 1}', 'two words')",
    ],
)
def test_what_is_for_people_is_left_alone(text: str) -> None:
    assert not {(old, new) for old, new in changes(text) if "g(" not in old}


def test_a_mutant_is_the_tree_with_its_change() -> None:
    text = "def f(a):\n    if a > 1:\n        return min(a, 5)\n    return 0\n"
    made = set()
    for number in range(len(mutants("m.py", ast.parse(text)))):
        changed = ast.unparse(mutants("m.py", ast.parse(text))[number].apply())
        compile(changed, "m.py", "exec")
        made.add(changed)
    assert ast.unparse(ast.parse(text)) not in made
    assert "def f(a):\n    if a >= 1:\n        return min(a, 5)\n    return 0" in made


def test_every_file_of_the_law_is_mutated_and_has_tests() -> None:
    assert {file.partition("/")[0] for file in FILES} == set(TESTS)
    assert all(TESTS.values())


def test_mutants_have_keys_of_their_own_and_the_list_names_some_of_them() -> None:
    keys = [mutant.key for mutant in all_mutants()]
    assert len(keys) == len(set(keys)) > 2_000
    assert set(listed()) <= set(keys), "docs/mutants.md lists what is no mutant: run make mutants"
