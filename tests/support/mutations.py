"""What can be made wrong in a module, one small thing at a time."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Other = tuple[ast.AST, str]
"""What a node may be replaced by, and how that is told."""

_MANY: Final = 6
_SHOWN: Final = 100
"""So many characters of a node are told at the most."""
_OPPOSITES: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
}
_SWAPPED_CALLS: Final = {"max": "min", "min": "max", "sorted": "list", "any": "all", "all": "any"}
_NAMED: Final = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_FOR_TYPES: Final = {"annotation", "returns", "decorator_list", "bases"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutation:
    """One thing that is made wrong in a tree, and can be undone."""

    where: str
    """The function or class that it is in."""
    what: str
    apply: Callable[[], None]
    undo: Callable[[], None]


def mutations(
    tree: ast.Module, *, enums: Mapping[str, Sequence[str]], constants: Sequence[Sequence[str]] = ()
) -> Iterator[Mutation]:
    """Return every mutation of a module: each must be undone before the next is asked for.

    Conditions are inverted, decided, or lose a part; comparisons shift; statements, arguments, elements and cases are
    left out; members of enumerations, names of the wire's constants, numbers and texts become others.

    :param enums: By the name of an enumeration its members: each becomes each other, or where there are many its
        neighbours.
    :param constants: The same for names that stand for themselves, by the enumerations that they are of.
    """
    others = {
        f"{name}.{member}": [f"{name}.{other}" for other in _others_of(member, members)]
        for name, members in enums.items()
        for member in members
    }
    others |= {member: _others_of(member, members) for members in constants for member in members}
    yield from _inside(tree, "", others)


def _inside(node: ast.AST, where: str, members: Mapping[str, Sequence[str]]) -> Iterator[Mutation]:
    for field, value in list(ast.iter_fields(node)):
        if field in _FOR_TYPES:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _says_nothing(child):
                continue
            inner = f"{where}.{child.name}" if isinstance(child, _NAMED) else where
            for other, what in _others(child, members):
                yield _replacement(_Place(node, field, index), other, inner, what)
            yield from _removals(child, inner)
            yield from _inside(child, inner, members)


def _says_nothing(node: ast.AST) -> bool:
    """Tell whether a node does nothing that a test could see: imports, docstrings, and what is for types or logs."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="_log")))):
            return True
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar")) | ast.Subscript(value=ast.Name(id="tuple"))):
            return True
        case _:
            return False


# --- What takes the place of a node


def _others(node: ast.AST, members: Mapping[str, Sequence[str]]) -> Iterator[Other]:
    match node:
        case ast.Attribute(value=ast.Name()) | ast.Name(ctx=ast.Load()) if ast.unparse(node) in members:
            for other in members[ast.unparse(node)]:
                yield _told(node, ast.parse(other, mode="eval").body)
        case ast.If(test=test, body=body, orelse=orelse):
            for decided in (True, False):
                made = ast.If(test=ast.Constant(value=decided), body=body, orelse=orelse)
                yield made, f"if {ast.unparse(test)} → {decided}"
        case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Continue() | ast.Raise():
            yield ast.Pass(), f"{ast.unparse(node)} → nothing"
        case ast.expr():
            yield from (_told(node, instead) for instead in _expressions(node))


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(op=ast.Or() if isinstance(op, ast.And) else ast.And(), values=values)
            for number in range(len(values)):
                rest = values[:number] + values[number + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op=op, values=rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.BinOp(left=left, op=op, right=right):
            yield from (left, right)
            if isinstance(op, ast.Add | ast.Sub):
                yield ast.BinOp(left=left, op=ast.Sub() if isinstance(op, ast.Add) else ast.Add(), right=right)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _SWAPPED_CALLS:
            yield ast.Call(func=ast.Name(id=_SWAPPED_CALLS[name], ctx=ast.Load()), args=args, keywords=keywords)
        case ast.Constant(value=value):
            yield from (ast.Constant(value=other) for other in _constants(value))


def _comparisons(node: ast.Compare) -> Iterator[ast.expr]:
    for number, op in enumerate(node.ops):
        for other in _OPPOSITES[type(op)]:
            ops = [*node.ops[:number], other(), *node.ops[number + 1 :]]
            yield ast.Compare(left=node.left, ops=ops, comparators=node.comparators)


def _constants(value: object) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case str() if " " not in value:  # else it is a sentence, whose words no test holds
            yield f"{value} or so"
        case bytes():
            yield value + b" or so"


def _others_of(member: str, members: Sequence[str]) -> list[str]:
    place = members.index(member)
    neighbours = [members[place - 1], members[(place + 1) % len(members)]]
    return neighbours if len(members) > _MANY else [each for each in members if each != member]


def _told(node: ast.AST, other: ast.AST) -> Other:
    return other, f"{ast.unparse(node)} → {ast.unparse(other)}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node stands in its parent."""

    parent: ast.AST
    field: str
    index: int | None

    def get(self) -> ast.AST:
        value: ast.AST = getattr(self.parent, self.field)
        return value if self.index is None else value[self.index]  # type: ignore[index]

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def _replacement(place: _Place, other: ast.AST, where: str, what: str) -> Mutation:
    node = place.get()
    ast.fix_missing_locations(ast.copy_location(other, node))
    return Mutation(where=where, what=what, apply=lambda: place.put(other), undo=lambda: place.put(node))


# --- What is left out of a node


def _removals(node: ast.AST, where: str) -> Iterator[Mutation]:
    fields: tuple[str, ...] = ()
    match node:
        case ast.Set() | ast.List() | ast.Tuple(ctx=ast.Load()):
            fields = ("elts",)
        case ast.Dict():
            fields = ("keys", "values")
        case ast.Call():
            fields = ("keywords",)
        case ast.comprehension():
            fields = ("ifs",)
        case ast.Match():
            fields = ("cases",)
    if fields:
        for index in range(len(getattr(node, fields[0]))):
            yield _removal(node, fields, index, where)


def _removal(node: ast.AST, fields: tuple[str, ...], index: int, where: str) -> Mutation:
    removed = [getattr(node, field)[index] for field in fields]

    def apply() -> None:
        for field in fields:
            del getattr(node, field)[index]

    def undo() -> None:
        for field, part in zip(fields, removed, strict=True):
            getattr(node, field).insert(index, part)

    part = ": ".join(_shown(each) for each in removed)
    return Mutation(where=where, what=f"{_shown(node)} without {part}", apply=apply, undo=undo)


def _shown(node: ast.AST | None) -> str:
    match node:
        case None:
            text = "**"
        case ast.match_case(pattern=pattern):
            text = f"case {ast.unparse(pattern)}"
        case ast.Match(subject=subject):
            text = f"match {ast.unparse(subject)}"
        case ast.Call(func=func):
            text = f"{ast.unparse(func)}(…)"
        case ast.keyword(arg=name, value=value):
            text = name or f"**{ast.unparse(value)}"
        case _:
            text = ast.unparse(node)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
