"""Answers of functions: what a returned value is over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homing_function.types import Converter, converter

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A name of a header, as RFC 9110, 5.1, has it."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OF_THE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers of how an answer is sent, which are said here: an answer that a function got elsewhere was sent otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a function returns to say more of its answer than a value does."""

    body: Any = None
    """As a function would return it: bytes and str go as they are, anything else as JSON."""
    status: int = 200
    """The HTTP status. Other than 2xx it is a failed attempt, retried as the function's retry policy says."""
    content_type: str = ""
    """By default that of the body's kind."""
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = field(default_factory=dict)
    """Further headers; pairs where a name comes more than once. How the answer is sent is not said here: the length
    and what else belongs to a connection is left out."""

    def __post_init__(self) -> None:
        """Check what would make the answer none.

        :raises TypeError: The status is no number, or a header is no text.
        :raises ValueError: The status is none of an answer, or a header has what a header cannot have.
        """
        if not isinstance(self.status, int):
            raise TypeError(f"status must be a number, is {self.status!r}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"status must be from 200 to 599, is {self.status}")
        _check_value("content_type", self.content_type)
        for name, value in self.pairs():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header")
            _check_value(f"the header {name}", value)

    def pairs(self) -> Sequence[tuple[str, str]]:
        """Return the headers, each by itself."""
        return tuple(self.headers.items() if isinstance(self.headers, Mapping) else self.headers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer as it goes over HTTP."""

    status: int
    content_type: str
    """Empty where there is no body."""
    body: bytes
    headers: Sequence[tuple[str, str]] = ()


def answer_of(value: Any, output: Converter) -> Answer:
    """Return the answer that a returned value stands for.

    :param output: Checks and converts what goes as JSON.
    :raises ConversionError: The value is not of the type that the function declares.
    """
    if isinstance(value, Response):
        content_type, body = encoded(value.body, output)
        headers = tuple(pair for pair in value.pairs() if pair[0].lower() not in _OF_THE_CONNECTION)
        return Answer(status=value.status, content_type=value.content_type or content_type, body=body, headers=headers)
    content_type, body = encoded(value, output)
    return Answer(status=200, content_type=content_type, body=body)


def encoded(value: Any, output: Converter) -> tuple[str, bytes]:
    """Return the content type and the bytes of a value.

    :raises ConversionError: It is not of the type that the function declares.
    """
    match value:
        case None:
            return "", b""
        case bytes() | bytearray() | memoryview():
            return BYTES, bytes(value)
        case str():
            return TEXT, value.encode()
        case _:
            return JSON, as_json(value, output)


def item_of(value: Any, output: Converter) -> tuple[str, bytes]:
    """Return the content type and the bytes of a value that a function yields: a line of JSON but for bytes and str.

    :raises ConversionError: It is not of the type that the function declares.
    """
    match value:
        case bytes() | bytearray() | memoryview() | str():
            return encoded(value, output)
        case _:
            return LINES, as_json(value, output) + b"\n"


def as_json(value: Any, output: Converter) -> bytes:
    """Return a value as JSON."""
    carried = output.dump(value, "result")
    text = json.dumps(carried, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_carried)
    return text.encode()


def _carried(value: Any) -> Any:
    """Return as JSON takes it what is in a result whose type is not declared."""
    return converter(type(value)).dump(value, "result")


def _check_value(what: str, value: object) -> None:
    """Check the value of a header.

    :raises TypeError: It is no text.
    :raises ValueError: It has a line feed or another control character, with which another header could begin.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a text, is {value!r}")
    if _CONTROL.search(value):
        raise ValueError(f"{what} has a line feed or another control character in it: {value!r}")


def failure(status: int, message: str, *, final: bool) -> Answer:
    """Return the answer that tells of a failure in one line.

    :param final: Whether another attempt does not help.
    """
    line = " ".join(message.split()) or "it failed"
    headers = (("X-Homing-Retry", "no"),) if final else ()
    return Answer(status=status, content_type=TEXT, body=f"{line}\n".encode(errors="replace"), headers=headers)
