"""Running a function for each line of a file."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import TextIO

import typer

from homing import AsyncOptions, Client, HomingError, InvalidRequestError, InvocationError, RequestError, Result
from homing_cli import output
from homing_cli.exits import FUNCTION_FAILED


def invoke_each(
    client: Client,
    name: str,
    source: str,
    options: AsyncOptions,
    *,
    concurrency: int,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Print the result of each line, in order and in a line of its own, and a summary on standard error.

    A line that fails leaves an empty line and a word on standard error, so results stay beside their lines.

    :raises typer.Exit: One of them failed.
    :raises homing.RequestError: A call failed in a way that concerns all lines.
    """
    started = time.monotonic()
    with _opened(source) as file, output.progress() as progress:
        task = progress.add_task("", total=_count(source) if progress.disable is False else None)
        succeeded = failed = 0
        outcomes = client.map(
            name,
            (line.removesuffix("\n").removesuffix("\r") for line in file),
            concurrency=concurrency,
            return_exceptions=True,
            timeout=timeout,
            **options,
        )
        for number, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, Result):
                succeeded += 1
                _print(outcome, as_json=as_json)
            else:
                failed += 1
                _print_failure(outcome, number, as_json=as_json)
            progress.update(task, advance=1, description=f"{failed} failed" if failed else "")
    took = time.monotonic() - started
    output.complain(
        f"{output.several(succeeded + failed, 'line')}: {succeeded} succeeded, {failed} failed, in {took:.1f} s"
    )
    if failed:
        raise typer.Exit(FUNCTION_FAILED)


def _opened(source: str) -> TextIO:
    # What is not UTF-8 is refused line by line. A byte order mark is the file's and not the first line's. A line ends
    # with a line feed alone: by itself Python would take a carriage return for an end too.
    if source == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    try:
        return Path(source).open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    except OSError as err:
        raise typer.BadParameter(f"cannot read {source}: {err.strerror}", param_hint="--each") from None


def _count(source: str) -> int | None:
    """Return the number of lines, where it can be told without taking them away."""
    if source == "-" or not Path(source).is_file():
        return None
    with Path(source).open("rb") as file:
        return sum(1 for _ in file)


def _print(result: Result, *, as_json: bool) -> None:
    if as_json:
        output.print_json(result.invocation.message)
    else:
        output.print_one_line(result.data)


def _print_failure(error: Exception, number: int, *, as_json: bool) -> None:
    if not isinstance(error, HomingError):
        raise error
    if isinstance(error, RequestError) and not isinstance(error, InvalidRequestError):
        raise error
    output.complain(f"line {number}: {error}")
    if not as_json:
        output.print_line("")
    elif isinstance(error, InvocationError):
        output.print_json(error.invocation.message)
    else:
        output.print_json({"error": str(error)})
