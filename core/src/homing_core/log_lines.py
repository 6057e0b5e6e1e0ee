"""How what a function writes becomes log lines, and how much of them an invocation may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from homing_core import limits

CUT: Final = " … (cut)"
"""Ends a line of which the rest was dropped."""
CAPPED: Final = "… more was written and dropped"
"""The last line of a log that is full."""


@dataclass(kw_only=True, slots=True)
class LogAllowance:
    """How much an invocation has written; over the limit from the first line on that does not fit."""

    lines: int = 0
    size: int = 0
    """Bytes of text."""

    @property
    def used_up(self) -> bool:
        """Whether nothing more is kept."""
        return self.lines > limits.MAX_LOG_LINES or self.size > limits.MAX_LOG_SIZE

    def take(self, text: str) -> bool:
        """Count a line; return whether it is kept."""
        self.lines += 1
        self.size += len(text.encode())
        return not self.used_up


class LineSplitter:
    """Splits a stream of bytes into lines of bounded length; what is no UTF-8 is replaced."""

    __slots__ = ("_begun", "_cut")

    def __init__(self) -> None:
        self._begun = b""
        self._cut = False
        """Whether the line that has begun was cut, so that the rest of it is dropped."""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the lines that these bytes complete or make too long."""
        *ended, begun = data.split(b"\n")
        for piece in ended:
            line, self._begun = self._begun + piece, b""
            if not self._cut:
                yield _text(line)
            self._cut = False
        if self._cut:
            return
        self._begun += begun
        if len(self._begun) > limits.MAX_LOG_LINE:
            line, self._begun, self._cut = self._begun, b"", True
            yield _text(line)

    @property
    def begun(self) -> bool:
        """Whether a line has begun that is not complete."""
        return bool(self._begun) or self._cut

    def rest(self) -> Iterator[str]:
        """Yield what was written after the last line feed; what comes next begins a line."""
        line, self._begun, self._cut = self._begun, b"", False
        if line:
            yield _text(line)


def _text(line: bytes) -> str:
    if len(line) > limits.MAX_LOG_LINE:
        return line[: limits.MAX_LOG_LINE].decode("utf-8", "replace") + CUT
    return line.removesuffix(b"\r").decode("utf-8", "replace")
