"""What the decorator makes of Python functions."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

import pytest

from homing_function import Context, Function, function
from homing_function.errors import DeclarationError


def test_a_function_is_still_what_it_was() -> None:
    @function(name="louder", concurrency=8)
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    assert shout("hi") == "HI"
    assert (shout.name, shout.concurrency, shout.__doc__) == ("louder", 8, "Shout.")


def test_its_name_is_that_of_the_python_function_with_hyphens() -> None:
    @function
    def make_Thumbnail_() -> None: ...  # noqa: N802

    assert make_Thumbnail_.name == "make-thumbnail"


def test_async_functions_and_generators_are_told_apart() -> None:
    async def coroutine(ctx: Context) -> None: ...
    async def stream() -> AsyncIterator[int]:
        yield 1

    def items() -> Iterator[int]:
        yield 1

    def plain(body: bytes) -> None: ...

    kinds = {
        each.name: (each.is_async, each.streams) for each in (make(coroutine), make(stream), make(items), make(plain))
    }

    assert kinds == {
        "coroutine": (True, False), "stream": (True, True), "items": (False, True), "plain": (False, False)
    }  # fmt: skip


class Options(TypedDict, total=False):
    name: str
    concurrency: int


def make(handler: Callable[..., Any]) -> Function[..., Any]:
    return Function(handler, name="", concurrency=1)


def _two(a: int, b: int) -> None: ...
def _rest(*parts: str) -> None: ...
def _file(file: io.BytesIO) -> None: ...
def _unknown(file: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def _gives(a: int) -> io.BytesIO: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("handler", "options", "why"),
    [
        (_two, {}, r"_two has the parameters a and b: one takes the payload, and another one may be of type Context"),
        (_rest, {}, r"_rest has the parameter \*parts: 'str', and parameters are given by their names"),
        (_file, {}, r"_file has the parameter file: <class '_io.BytesIO'> is no type that can be carried as JSON"),
        (_unknown, {}, r"the types of the function _unknown cannot be found: name 'Nowhere' is not defined"),
        (_gives, {}, r"what the function _gives returns: <class '_io.BytesIO'> is no type"),
        (lambda: None, {}, r"has the name '<lambda>', which must match .*; give name="),
        (lambda: None, {"name": "A"}, r"has the name 'A'"),
        (lambda: None, {"name": "a", "concurrency": 0}, r"has concurrency 0, which must be from 1 to 1000"),
    ],
)
def test_what_cannot_be_served_is_told_where_it_is_declared(
    handler: Callable[..., Any], options: Options, why: str
) -> None:
    with pytest.raises(DeclarationError, match=why):
        Function(handler, name=options.get("name", ""), concurrency=options.get("concurrency", 1))
