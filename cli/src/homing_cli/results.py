"""How what came of an invocation is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homing import Answer, AnswerStream, InvocationError, InvocationHandle, Result
from homing_cli import output

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the function's output to this file, just as it is."),
]

_SHOWN = 4096
"""At most so many characters of a result are shown between other things."""


def wait_and_print(handle: InvocationHandle, timeout: float | None, *, as_json: bool, to: Path | None = None) -> None:
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
    print_result(result, as_json=as_json, to=to)


def print_accepted(handle: InvocationHandle, *, as_json: bool) -> None:
    """Print the id of an accepted invocation; as JSON its record."""
    if as_json:
        output.print_json(handle.describe().message)
    else:
        output.print_line(handle.id)


def print_result(result: Result, *, as_json: bool, to: Path | None = None) -> None:
    """Print the output of a function just as it is, or write it to a file; as JSON the record."""
    if to is not None:
        output.write_file(to, result.data, result.content_type)
    if as_json:
        output.print_json(result.invocation.message)
    elif to is None:
        output.print_raw(result.data, result.content_type)


def print_stream(answer: AnswerStream, *, to: Path | None = None) -> None:
    """Print the output of a function just as it is, as it comes, or write it to a file.

    :raises homing.InvocationError: It did not succeed, or broke off.
    :raises homing.RequestError: The call failed.
    """
    with answer:
        if to is None:
            output.print_parts(answer, answer.content_type)
        else:
            output.write_parts(to, answer, answer.content_type)


def print_failure(error: InvocationError, *, as_json: bool) -> None:
    """Print what the function said last, apart from where its output would go."""
    if as_json:
        output.print_json(error.invocation.message)
    elif error.result is not None and error.result.data:
        typer.echo(shown(error.result), err=True)


def shown(answer: Answer) -> str:
    """Return the beginning of an answer's text, line by line, without control characters; what it is if no text."""
    if not output.is_text(answer.data):
        return output.binary(answer.data, answer.content_type)
    lines = answer.text[:_SHOWN].splitlines()
    rest = ["…"] if len(answer.text) > _SHOWN else []
    return "\n".join([*("\t".join(map(output.escaped, line.split("\t"))) for line in lines), *rest])
