"""HTTP headers that come from functions: what of them is kept, and in which bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from homing.v1.payload_pb2 import Header
from homing_core import limits

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection and not to the message."""

_DROPPED: Final = HOP_BY_HOP | {"content-length"}


def clean_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers of an answer as they are kept: names in lower case, values of one name joined.

    Those of the connection and the length are dropped, and so is what exceeds the limits of number and size.
    """
    kept: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in pairs:
        key, value = _readable(raw_name.lower()), _readable(raw_value)
        if key in _DROPPED:
            continue
        size += len(key) + len(value)
        if size > limits.MAX_HEADERS_SIZE:
            break
        if key in kept:
            kept[key] += ", " + value
        elif len(kept) < limits.MAX_HEADERS:
            kept[key] = value
    return kept


def joined(headers: Iterable[Header]) -> dict[str, str]:
    """Return the headers of a message by name, several values of one name joined."""
    found: dict[str, str] = {}
    for header in headers:
        found[header.name] = f"{found[header.name]}, {header.value}" if header.name in found else header.value
    return found


def _readable(text: str) -> str:
    """Return text without the surrogates that stand for bytes which are not UTF-8: messages cannot carry them."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
