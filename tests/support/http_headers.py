"""Headers as messages have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from homing.v1.payload_pb2 import Header


def headers_of(named: Mapping[str, str]) -> list[Header]:
    """Return headers by their names and values."""
    return [Header(name=name, value=value) for name, value in named.items()]


def by_name(headers: Iterable[Header]) -> dict[str, str]:
    """Return the values of headers by their names, which must be each once."""
    found = {header.name: header.value for header in headers}
    assert len(found) == len(list(headers))
    return found
