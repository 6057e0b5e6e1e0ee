"""What no log may ever show: the tests look at every line of every process."""

from __future__ import annotations

import re
from typing import Final

_KEYS: Final = re.compile(r"hk_[A-Za-z0-9]{4,}_[A-Za-z0-9_-]{40,}|whsec_[A-Za-z0-9+/]{24,}")
"""API keys and signing keys are known by their form."""

_values: set[str] = set()


def confidential(value: str) -> str:
    """Return a value, and have it looked for in all logs from now on."""
    assert len(value) >= 8, "what is so short may stand anywhere by chance"
    _values.add(value)
    return value


def betrayed(line: str) -> bool:
    """Tell whether a line shows what it must not."""
    return _KEYS.search(line) is not None or any(value in line for value in _values)
