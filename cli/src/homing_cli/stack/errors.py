"""What is wrong with a stack file."""

from __future__ import annotations

from typing import Final

_SHOWN: Final = 60


class StackError(Exception):
    """A stack file, or one that it names, cannot be read or says what it must not. One line."""


def shown(text: str) -> str:
    """Return a text of the file as an error shows it: the beginning, where it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
