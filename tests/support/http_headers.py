"""Headers as messages have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from homing.v1.payload_pb2 import Header

Pairs = list[tuple[str, str]]


def headers_of(named: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[Header]:
    """Return headers by their names and values."""
    pairs = named.items() if isinstance(named, Mapping) else named
    return [Header(name=name, value=value) for name, value in pairs]


def by_name(headers: Iterable[Header]) -> dict[str, str]:
    """Return the values of headers by their names, which must be each once."""
    found = {header.name: header.value for header in headers}
    assert len(found) == len(list(headers))
    return found


def pairs_of(headers: Iterable[Header], *names: str) -> Pairs:
    """Return names and values of headers in order, or of those with certain names."""
    return [(header.name, header.value) for header in headers if not names or header.name in names]
