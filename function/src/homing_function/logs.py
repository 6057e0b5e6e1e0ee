"""What functions write: whole lines, at once, and with the id of their call where a process serves several at a time.

By that homing gives each line to the invocation that it belongs to, see its docs/logs.md.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TextIO

_FORMAT: Final = "%(levelname)s %(name)s: %(message)s"
_call: ContextVar[str] = ContextVar("call", default="")
"""The id of the call that is served here; empty where there is none."""


class CallStream(io.TextIOBase):
    """A standard stream that writes whole lines, each with the id of the call that it belongs to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun: dict[str, str] = {}
        """By call, the line that has begun."""
        self._lock = threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base has it as a variable
        """The encoding of the stream."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write the lines that are complete, and keep the rest."""
        call = _call.get()
        if not call:
            return self._stream.write(text)
        with self._lock:
            *lines, begun = (self._begun.pop(call, "") + text).split("\n")
            if begun:
                self._begun[call] = begun
            if lines:
                self._stream.write("".join(f"[{call}] {line}\n" for line in lines))
                self._stream.flush()
        return len(text)

    def end(self, call: str) -> None:
        """Write the line that a call has begun."""
        with self._lock:
            begun = self._begun.pop(call, "")
            if begun:
                self._stream.write(f"[{call}] {begun}\n")
                self._stream.flush()

    def flush(self) -> None:
        """Write what the stream still holds; lines that have begun are kept."""
        self._stream.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True


_streams: list[CallStream] = []


def configure(*, with_call_ids: bool) -> None:
    """Have standard output and error written line by line, and ``logging`` to standard error.

    :param with_call_ids: Whether each line bears the id of its call.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    if with_call_ids:
        out, err = CallStream(sys.stdout), CallStream(sys.stderr)
        sys.stdout, sys.stderr = out, err
        _streams.extend((out, err))
    # Where the user's file has configured it, this does nothing.
    logging.basicConfig(level=logging.INFO, format=_FORMAT, stream=sys.stderr)


@contextmanager
def of_call(call_id: str) -> Iterator[None]:
    """Note that what is written in this context belongs to a call."""
    token = _call.set(call_id)
    try:
        yield
    finally:
        _call.reset(token)
        for stream in _streams:
            stream.end(call_id)
