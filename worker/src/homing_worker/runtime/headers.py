"""HTTP headers: pairs of name and value in their order, in which a name may come more than once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from homing.v1.payload_pb2 import Header
from homing_core import limits
from homing_core.header_names import HOP_BY_HOP

Headers = Sequence[tuple[str, str]]
"""Each header of a message by itself, in order."""

_DROPPED: Final = HOP_BY_HOP | {"content-length"}


def kept_headers(answered: Iterable[tuple[str, str]], *, to_head: bool = False) -> Headers:
    """Return what is kept of the headers of an answer, names in lower case.

    Those of the connection and the length are dropped, and so is each that exceeds the limits of number and size.

    :param to_head: Whether HEAD was asked: the length is that of a body which does not come, and is kept.
    """
    kept: list[tuple[str, str]] = []
    size = 0
    named = [(readable(name.lower()), readable(value)) for name, value in answered]
    # What `Connection` names belongs to the connection too (RFC 9110, 7.6.1).
    of_connection = {each.strip().lower() for name, value in named if name == "connection" for each in value.split(",")}
    dropped = HOP_BY_HOP if to_head else _DROPPED
    for name, value in named:
        if name in dropped or name in of_connection or size + len(name) + len(value) > limits.MAX_HEADERS_SIZE:
            continue
        if len(kept) == limits.MAX_HEADERS:
            break
        size += len(name) + len(value)
        kept.append((name, value))
    return kept


def pairs(messages: Iterable[Header]) -> Headers:
    """Return headers that came in a message, a name always spelled as it is first.

    aiohttp takes two spellings of one name for two values of which the last one holds.
    """
    spelled: dict[str, str] = {}
    return [(spelled.setdefault(header.name.lower(), header.name), header.value) for header in messages]


def overridden(headers: Headers, by: Headers) -> Headers:
    """Return headers, those apart whose names others have, followed by the others. Names are case-insensitive."""
    names = {name.lower() for name, _ in by}
    return [*(header for header in headers if header[0].lower() not in names), *by]


def joined(headers: Headers) -> dict[str, str]:
    """Return headers by their names in lower case, the values of one name joined by ``, ``."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def readable(text: str) -> str:
    """Return the text of a header in which surrogates may stand for bytes that are not UTF-8: messages carry no such.

    One that is not UTF-8 as a whole has a character for each byte, as many a server sends it: Latin-1.
    """
    if text.isascii():
        return text
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
