"""Answers of functions: what a returned value is over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from homing_function.types import Converter, converter

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"


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
    """Further headers; pairs where a name comes more than once."""


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
        headers = value.headers.items() if isinstance(value.headers, Mapping) else value.headers
        return Answer(
            status=value.status, content_type=value.content_type or content_type, body=body, headers=tuple(headers)
        )
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


def failure(status: int, message: str, *, final: bool) -> Answer:
    """Return the answer that tells of a failure in one line.

    :param final: Whether another attempt does not help.
    """
    line = " ".join(message.split()) or "it failed"
    headers = (("X-Homing-Retry", "no"),) if final else ()
    return Answer(status=status, content_type=TEXT, body=f"{line}\n".encode(errors="replace"), headers=headers)
