"""YAML as a stack file has it: mappings, lists and texts, of a bounded size.

A scalar is the text that it is written as, as Go's YAML library fills fields that are strings: a label `1.10` is not
the number 1.1, and `write_debug: true` is an environment variable `true`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

from homing_cli.stack.errors import StackError, shown

Document = dict[str | None, Any] | list[Any] | str | None

_MAX_DEPTH: Final = 20
_MAX_NODES: Final = 20_000
"""So many nodes a document may have, those counted again that aliases stand for."""
_PREFIX: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_PREFIX}merge"
_TAGS: Final = frozenset({_MERGE, *(f"{_PREFIX}{name}" for name in ("str", "null", "map", "seq"))})


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with bounds and without types."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 as its parent has it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._composed = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}
        """How many nodes there are below each, and how deep."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, unless it is too much."""
        is_alias = self.check_event(yaml.AliasEvent)
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        self._depth += 1
        self._composed += 1
        self._check(line, self._composed, self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if is_alias and node not in self._extents:
            raise StackError(f"line {line}: an alias is in what it stands for")
        if not is_alias:
            self._extents[node] = self._extent(node)
        self._check(line, *self._extents[node])
        if node.tag not in _TAGS:
            raise StackError(f"line {line}: the tag {shown(node.tag)} has no meaning in a stack file")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        """Construct a mapping, of which each key stands there once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise StackError(f"line {key.start_mark.line + 1}: {shown(key.value)} stands there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    @staticmethod
    def _check(line: int, size: int, depth: int) -> None:
        if size > _MAX_NODES or depth > _MAX_DEPTH:
            raise StackError(f"line {line}: has more than {_MAX_NODES:,} values, or more than {_MAX_DEPTH} levels")

    def _extent(self, node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.MappingNode):
            below = [self._extents[each] for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = [self._extents[each] for each in node.value]
        else:
            below = []
        return 1 + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0)


_Loader.add_implicit_resolver(f"{_PREFIX}null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])


def read_document(text: str) -> Document:
    """Return what a text of YAML says.

    :raises StackError: It is no YAML, too large, or says more than plain data.
    """
    try:
        found: Document = yaml.load(text, _Loader)  # noqa: S506 it is the safe loader, and less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise StackError(f"is no YAML: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise StackError(f"is no YAML: {str(error).partition(chr(10))[0]}") from None
    return found


def mapping_node(text: str) -> yaml.MappingNode | None:
    """Return the mapping that a text of YAML is, with the places of what is in it; None where it is empty.

    :raises StackError: It is no YAML, or something else.
    """
    read_document(text)
    node = yaml.compose(text, _Loader)
    if node is None or isinstance(node, yaml.MappingNode):
        return node
    raise StackError("is no mapping")
