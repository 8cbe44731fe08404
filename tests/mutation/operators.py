"""The small changes: each mutant is one node of a module's tree replaced by another.

What lives here: which node may become what. What must not: running anything.

What is for people is left alone: annotations, docstrings, decorators, f-strings, and texts of more than one word.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Value = ast.AST | list[ast.AST]

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
#: Closed lists of names of which one may stand where another should.
_FAMILIES: tuple[tuple[str, ...], ...] = (
    ("RETIRED", "HELD", "DISTRUSTED", "SUSPECT", "LAPSED", "UNKNOWN", "TRUSTED"),
    ("RAISED", "LOWERED", "EXTENDED", "RECORDED", "NONE", "REFUSED"),
    ("DENY", "PROBATION", "ADMITTED"),
    ("min", "max"),
    ("any", "all"),
    ("lt", "le"),
    ("eq", "ne"),
    ("gt", "ge"),
    ("pairwise", "combinations"),
    ("startswith", "endswith"),
    ("network_address", "broadcast_address"),
)
#: Enumerations: a member may become the one before or behind it.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "Standing": _FAMILIES[0],
    "EventKind": (
        "PASSED", "FAILED", "FAILED_LATE", "REQUESTED", "NOTED", "HINTED", "LAPSED", "HELD", "RELEASED", "PASSPORT",
        "RETIRED", "REINSTATED", "WITHHELD",
    ),
    "Outcome": ("PASSED", "FAILED", "REJECTED", "REQUESTED", "NOTED", "DOUBTED"),
    "Timeliness": ("FRESH", "STALE", "FUTURE", "LATE"),
}  # fmt: skip
_SKIPPED = frozenset({"annotation", "returns", "decorator_list", "bases", "type_comment", "ctx"})
_DELETED = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Raise, ast.Return, ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutant:
    """One change: ``function`` is its dotted name or ``""`` for what runs at import.

    ``number`` tells the same change at several places of one function apart, from 1. ``at_import``: the change is
    not, or not only, in the code of a function, so that it shows only when the module is imported anew.
    """

    module: str
    function: str
    before: str
    after: str
    number: int
    line: int
    at_import: bool
    tree: ast.Module = field(repr=False, compare=False)
    parent: ast.AST = field(repr=False, compare=False)
    name: str = field(repr=False, compare=False)
    index: int | None = field(repr=False, compare=False)
    node: ast.AST | None = field(repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What names the mutant wherever in its file it stands."""
        return self.module, self.function, self.before, self.after, self.number

    def __str__(self) -> str:
        times = f" ({self.number})" if self.number > 1 else ""
        return f"`{self.module}` `{self.function or 'import'}`: `{self.before}` → `{self.after}`{times}"

    def apply(self) -> ast.Module:
        """Change the tree that the mutant was made from, for good, and return it."""
        if self.index is None:
            setattr(self.parent, self.name, self.node)
            return self.tree
        listed: list[ast.AST] = getattr(self.parent, self.name)
        if self.node is None:
            del listed[self.index]
        else:
            listed[self.index] = self.node
        return self.tree


class _Walk:
    """Goes through one module and keeps count of equal changes in one function."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self._module = module
        self._tree = tree
        self._seen: dict[tuple[str, str, str], int] = {}
        self._handlers = _handlers(tree)

    def mutants(self) -> Iterator[Mutant]:
        yield from self._body(self._tree, "", at_import=True)

    def _body(self, node: ast.AST, function: str, *, at_import: bool) -> Iterator[Mutant]:
        for name, value in ast.iter_fields(node):
            if name in _SKIPPED:
                continue
            if isinstance(value, ast.AST):
                yield from self._node(value, node, name, None, function, at_import=at_import)
            elif isinstance(value, list):
                for index, each in enumerate(value):
                    if isinstance(each, ast.AST):
                        yield from self._node(each, node, name, index, function, at_import=at_import)

    def _node(
        self, node: ast.AST, parent: ast.AST, name: str, index: int | None, function: str, *, at_import: bool
    ) -> Iterator[Mutant]:
        if _for_people(node, parent, at_import=at_import):
            return
        inner, inner_import = function, at_import
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{function}.{node.name}".lstrip(".")
            # Code of a nested function is part of the outer one's.
            inner_import = at_import and isinstance(node, ast.ClassDef)
        for changed in self._changes(node, parent, name):
            yield self._made(node, changed, parent, name, index, function, at_import=at_import)
        if isinstance(node, ast.FunctionDef):
            yield from self._body(node.args, inner, at_import=True)
            for at, each in enumerate(node.body):
                yield from self._node(each, node, "body", at, inner, at_import=inner_import)
        else:
            yield from self._body(node, inner, at_import=inner_import)

    def _made(
        self,
        node: ast.AST,
        changed: ast.AST | None,
        parent: ast.AST,
        name: str,
        index: int | None,
        function: str,
        *,
        at_import: bool,
    ) -> Mutant:
        if changed is not None:
            ast.copy_location(changed, node)
            ast.fix_missing_locations(changed)
        before, after = _text(node), "nothing" if changed is None else _text(changed)
        number = self._seen[function, before, after] = self._seen.get((function, before, after), 0) + 1
        line: int = getattr(node, "lineno", 0)
        return Mutant(
            self._module, function, before, after, number, line, at_import, self._tree, parent, name, index, changed
        )

    def _changes(self, node: ast.AST, parent: ast.AST, name: str) -> Iterator[ast.AST | None]:
        if name == "test" or (isinstance(parent, ast.comprehension) and name == "ifs"):
            yield from _conditions(node)
        if isinstance(node, ast.stmt):
            yield from _statements(node, parent)
        elif isinstance(node, ast.keyword):
            yield None
        elif isinstance(node, ast.comprehension):
            return
        elif isinstance(node, ast.expr):
            yield from _expressions(node)
            yield from _named(node, self._handlers)


def mutants(module: str, tree: ast.Module) -> tuple[Mutant, ...]:
    """Every mutant of a module, in the order of the text. ``module``: how its file is named in the list."""
    return tuple(_Walk(module, tree).mutants())


# --- what is left alone -------------------------------------------------------------------------------------------


def _for_people(node: ast.AST, parent: ast.AST, *, at_import: bool) -> bool:
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.arg():
            return True
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Constant(value=None):
            return isinstance(parent, ast.Compare)
        case ast.Constant(value=str(text)):
            return " " in text or isinstance(parent, ast.JoinedStr)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if at_import:
            # Names of types, and what a star import takes.
            called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypeVar"
            alias = isinstance(value, ast.Subscript | ast.Name) or (
                isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
            )
            return called or alias or name == "__all__"
    return False


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While | ast.If):
        return ast.unparse(node).splitlines()[0]
    return " ".join(ast.unparse(node).split())


# --- what becomes what --------------------------------------------------------------------------------------------


def _conditions(node: ast.AST) -> Iterator[ast.AST]:
    if not (isinstance(node, ast.Constant) and node.value is True):
        yield ast.Constant(True)
    yield ast.Constant(False)
    if isinstance(node, ast.expr) and not isinstance(node, ast.Compare):
        yield ast.UnaryOp(ast.Not(), node)


def _statements(node: ast.stmt, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.For():
            yield _with(node, iter=ast.Tuple([], ast.Load()))
        case ast.Break():
            yield ast.Continue()
        case ast.AugAssign(op=op) if type(op) in _ARITHMETIC:
            yield _with(node, op=_ARITHMETIC[type(op)]())
    if isinstance(node, _DELETED) and not (isinstance(node, ast.AnnAssign) and node.value is None):
        last = isinstance(node, ast.Return) and isinstance(parent, ast.FunctionDef) and node is parent.body[-1]
        if not last:
            yield ast.Pass()


def _expressions(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in _COMPARE[type(op)]:
                    yield _with(node, ops=[*ops[:at], other(), *ops[at + 1 :]])
        case ast.BoolOp(op=op, values=values):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
            for at in range(len(values)):
                rest = [*values[:at], *values[at + 1 :]]
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            yield _with(node, op=_ARITHMETIC[type(op)]())
        case ast.Constant(value=value):
            yield from (ast.Constant(other) for other in _other_values(value))
        case ast.Call(func=ast.Name(id="min" | "max")):
            return  # in any order the same
        case ast.Call(args=args):
            for at in range(len(args) - 1):
                if not any(isinstance(each, ast.Starred) for each in args[at : at + 2]):
                    yield _with(node, args=[*args[:at], args[at + 1], args[at], *args[at + 2 :]])
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)


def _other_values(value: object) -> Iterator[bool | float | str]:
    if value is None:
        yield 0
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
        yield value - 1
    elif isinstance(value, str):
        yield f"X{value}"


def _named(node: ast.expr, handlers: Sequence[str]) -> Iterator[ast.AST]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            beside = _beside(name, handlers) if name in handlers else _relatives(name)
            for other in beside:
                yield ast.Name(other, ast.Load())
        case ast.Attribute(value=ast.Name(id=owner), attr=attr) if owner in _MEMBERS and attr in _MEMBERS[owner]:
            for other in _beside(attr, _MEMBERS[owner]):
                yield _with(node, attr=other)
        case ast.Attribute(attr=attr):
            for family in _FAMILIES:
                if attr in family and attr.islower():
                    for other in _beside(attr, family):
                        yield _with(node, attr=other)


def _relatives(name: str) -> Iterator[str]:
    """Names of the same closed list, with the same underscore."""
    plain = name.lstrip("_")
    for family in _FAMILIES:
        if plain in family:
            yield from (name[: len(name) - len(plain)] + other for other in _beside(plain, family))


def _beside(name: str, family: Sequence[str]) -> tuple[str, ...]:
    at = family.index(name)
    return tuple(dict.fromkeys(each for each in (family[at - 1], family[(at + 1) % len(family)]) if each != name))


def _handlers(tree: ast.Module) -> tuple[str, ...]:
    """The functions that stand in the cells of a table of the module."""
    found: dict[str, None] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for row in node.value.values:
                if isinstance(row, ast.Tuple):
                    found.update((cell.id, None) for cell in row.elts if isinstance(cell, ast.Name))
    return tuple(found)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **changes: object) -> ast.AST:
    fields = {name: getattr(node, name) for name in node._fields if hasattr(node, name)}
    return type(node)(**{**fields, **changes})
