"""Where the payload of an invocation comes from: an argument, a file, or standard input."""

from __future__ import annotations

import mimetypes
import os
import select
import stat
import sys
from pathlib import Path
from typing import Final

import typer

import homing
from homing_cli.output import complain

_WORDLESS: Final = 1.0
"""So many seconds of silence on standard input are nothing to tell of."""


def read_payload(argument: str | None, data: str | None) -> tuple[str | bytes | None, str | None]:
    """Return the payload and, where it comes from a file with a telling name, its content type.

    :param argument: The text that stands behind the name of the function.
    :param data: The value of ``--data``: a text, ``@FILE``, or ``@-`` for standard input.
    :raises typer.BadParameter: Both are given, or the file cannot be read.
    :raises homing.PayloadTooLargeError: It is larger than a call carries.
    """
    if argument is not None and data is not None:
        raise typer.BadParameter("the payload is given twice", param_hint="--data")
    if argument is not None:
        return argument, None
    if data is None:
        return (_read_stdin(), None) if is_piped() else (None, None)
    if not data.startswith("@"):
        return data, None
    if data == "@-":
        return _read_stdin(), None
    return _read_file(Path(data[1:])), mimetypes.guess_type(data[1:])[0]


def is_piped() -> bool:
    """Tell whether something is sent to standard input: neither a terminal nor a device such as /dev/null is."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_stdin() -> bytes:
    _tell_that_it_waits()
    content = sys.stdin.buffer.read(homing.MAX_PAYLOAD + 1)
    if len(content) > homing.MAX_PAYLOAD:
        # How much more there is cannot be told without reading what may never end.
        raise homing.PayloadTooLargeError(size=len(content), limit=homing.MAX_PAYLOAD, field="payload from stdin")
    return content


def _tell_that_it_waits() -> None:
    """Tell who sits at a terminal what this waits for, where nothing comes."""
    if sys.stderr.isatty() and not select.select([sys.stdin], [], [], _WORDLESS)[0]:
        end = "Ctrl-D ends it" if sys.stdin.isatty() else "what is piped in has not ended"
        complain(f"waiting for the payload on standard input; {end}")


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > homing.MAX_PAYLOAD:
                raise homing.PayloadTooLargeError(size=size, limit=homing.MAX_PAYLOAD, field=f"payload from {path}")
            return file.read(homing.MAX_PAYLOAD + 1)
    except OSError as err:
        raise typer.BadParameter(f"cannot read {path}: {err.strerror}", param_hint="--data") from None
