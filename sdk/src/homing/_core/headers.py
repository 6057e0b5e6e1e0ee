"""The headers of HTTP messages: looked up by name, and each by itself where a name comes more than once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from homing._core import check
from homing.v1 import payload_pb2

HeaderValues: TypeAlias = Mapping[str, "str | Sequence[str]"]
"""Headers to send: a value, or a list of values where a name is to come more than once."""


class Headers(Mapping[str, str]):
    """The headers of an HTTP message, immutable. Names are case-insensitive.

    As a mapping it has the values of one name joined with ``, ``; ``get_all`` has each by itself, and ``pairs`` all of
    them in order. Use ``get_all`` for ``set-cookie``, whose values must not be joined.
    """

    __slots__ = ("_joined", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs: tuple[tuple[str, str], ...] = tuple((name.lower(), value) for name, value in pairs)
        """The headers in order, names in lower case."""
        self._joined: dict[str, str] = {}
        for name, value in self.pairs:
            self._joined[name] = f"{self._joined[name]}, {value}" if name in self._joined else value

    def __getitem__(self, name: str) -> str:
        """Return the values of a name, joined with ``, ``.

        :raises KeyError: There is no such header.
        """
        return self._joined[name.lower()]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each once."""
        return iter(self._joined)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._joined)

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs)!r})"

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of a name, in order."""
        wanted = name.lower()
        return tuple(value for key, value in self.pairs if key == wanted)


def headers(messages: Iterable[payload_pb2.Header]) -> Headers:
    """Return the headers that messages have."""
    return Headers((message.name, message.value) for message in messages)


def header_messages(name: str, value: object) -> list[payload_pb2.Header]:
    """Return headers as messages have them; None is none.

    :raises TypeError: They are not a mapping from str to str, or to lists of str.
    """
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str or list of str, not {type(value).__name__}")
    found: list[payload_pb2.Header] = []
    for key, one_or_more in value.items():
        field = check.text(f"a key of {name}", key)
        where = f"{name}[{field!r}]"
        values = [check.text(where, one_or_more)] if isinstance(one_or_more, str) else check.texts(where, one_or_more)
        found.extend(payload_pb2.Header(name=field, value=each) for each in values)
    return found
