"""Tracebacks that start where the user's own code does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import traceback
from itertools import dropwhile
from pathlib import Path
from typing import Final

_FOLDER: Final = str(Path(__file__).parent)
_MACHINERY: Final = tuple(str(Path(str(module.__file__)).parent) for module in (asyncio, concurrent.futures))


def formatted(error: BaseException) -> str:
    """Return an exception with its traceback, from the first frame of the user's on.

    What lies before is this library's and what it runs in, and where it ends in this library that part is not shown.
    """
    told = traceback.TracebackException.from_exception(error)
    frames = list(dropwhile(lambda frame: _is_machinery(frame.filename), told.stack))
    while frames and _is_ours(frames[-1].filename):
        frames.pop()
    if frames or isinstance(error, SyntaxError):
        told.stack = traceback.StackSummary.from_list(frames)
    return "".join(told.format())


def _is_machinery(file: str) -> bool:
    return file.startswith(("<frozen importlib", *_MACHINERY)) or _is_ours(file)


def _is_ours(file: str) -> bool:
    return file.startswith(_FOLDER)


def one_line(error: BaseException) -> str:
    """Return an exception in one line."""
    return " ".join("".join(traceback.format_exception_only(type(error), error)).split())
