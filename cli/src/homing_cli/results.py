"""How what came of an invocation is printed."""

from __future__ import annotations

import typer

from homing import Answer, InvocationError, InvocationHandle, Result
from homing_cli import output

_SHOWN = 4096
"""At most so many characters of a result are shown between other things."""


def wait_and_print(handle: InvocationHandle, timeout: float | None, *, as_json: bool) -> None:
    """Wait for an accepted invocation and print its result.

    :raises homing.InvocationError: It did not succeed; what the function said is printed.
    :raises homing.RequestError: A call failed.
    """
    output.complain(f"accepted as {handle.id}")
    try:
        result = handle.result(timeout)
    except InvocationError as error:
        print_failure(error, as_json=as_json)
        raise
    print_result(result, as_json=as_json)


def print_accepted(handle: InvocationHandle, *, as_json: bool) -> None:
    """Print the id of an accepted invocation; as JSON its record."""
    if as_json:
        output.print_json(handle.describe().message)
    else:
        output.print_line(handle.id)


def print_result(result: Result, *, as_json: bool) -> None:
    """Print the output of a function just as it is; as JSON the record."""
    if as_json:
        output.print_json(result.invocation.message)
    else:
        output.print_raw(result.data)


def print_failure(error: InvocationError, *, as_json: bool) -> None:
    """Print what the function said last, apart from where its output would go."""
    if as_json:
        output.print_json(error.invocation.message)
    elif error.result is not None and error.result.data:
        typer.echo(shown(error.result), err=True)


def shown(answer: Answer) -> str:
    """Return the beginning of an answer's text, line by line, without control characters."""
    lines = answer.text[:_SHOWN].splitlines()
    rest = ["…"] if len(answer.text) > _SHOWN else []
    return "\n".join([*(output.plain(line) for line in lines), *rest])
