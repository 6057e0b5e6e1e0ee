"""The headers of requests and answers: which pass between client and function, and which are the gateway's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from homing_core.header_names import HOP_BY_HOP, NOT_PASSED_ON
from homing_server.front.http.authorization import shown_key

RawHeaders = Iterable[tuple[bytes, bytes]]

HOMING: Final = "x-homing-"
LENGTH: Final = "content-length"
_OPTIONS: Final = (HOMING, "x-fc-")
_KEY: Final = re.compile(r"hk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")

_NOT_PASSED_ON: Final = NOT_PASSED_ON | {"traceparent", "x-start-time"}
"""What no function gets from a client: what belongs to the connection, and what homing says itself."""
_FIELDS: Final = {"content-type": "content_type", "host": "host", "x-call-id": "call_id", "traceparent": "traceparent"}
_ALSO_READ: Final = frozenset({"x-callback-url", "idempotency-key", "prefer"})
"""What is meant for the gateway, and passed on all the same: functions may make something of it."""
_FORWARDED: Final = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_SPECIAL: Final = _NOT_PASSED_ON | _FIELDS.keys() | _ALSO_READ | _FORWARDED | {"authorization"}
_REPLACED: Final = frozenset({LENGTH, "date", "x-call-id", "x-start-time"})
"""Headers of an answer that the gateway says itself."""


class BadHeaderError(Exception):
    """A header cannot be heeded; the message completes «HEADER: …»."""

    def __init__(self, header: str, why: str) -> None:
        super().__init__(f"{header}: {why}")


@dataclass(kw_only=True, slots=True)
class Asked:
    """What the headers of a request say."""

    passed_on: list[tuple[str, str]] = field(default_factory=list)
    """What the function gets, in order."""
    content_type: str = ""
    host: str = ""
    call_id: str = ""
    traceparent: str = ""
    length: int | None = None
    """How many bytes its client says that its body has."""
    options: dict[str, str] = field(default_factory=dict)
    """What is asked of the gateway, by names in lower case."""
    forwarded: dict[str, str] = field(default_factory=dict)
    """Which way the request came, as proxies before this server tell."""
    of_connection: set[str] = field(default_factory=set)
    """Names of headers that belong to the connection, as `Connection` says."""


def asked_by(headers: RawHeaders, *, client: str, scheme: str, needs_keys: bool) -> Asked:
    """Read the headers of a request.

    :param needs_keys: Whether this server needs keys: `Authorization` is for it then, and for no function.
    :param client: The address that it comes from; empty where that is not known.
    :raises BadHeaderError: One is there twice that may not be.
    """
    asked = Asked()
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), text_of(raw_value)
        if name.startswith(_OPTIONS):
            _add_option(asked, name, value)
        elif name not in _SPECIAL:
            asked.passed_on.append((name, value))
        elif name != "authorization":
            _note(asked, name, value)
        elif not needs_keys and not _shows_key(value):
            asked.passed_on.append((name, value))
    if asked.of_connection:
        asked.passed_on = [header for header in asked.passed_on if header[0] not in asked.of_connection]
    forwarded = asked.forwarded
    if client:
        before = forwarded.get("x-forwarded-for")
        forwarded["x-forwarded-for"] = f"{before}, {client}" if before else client
    forwarded.setdefault("x-forwarded-proto", scheme)
    if asked.host:
        forwarded.setdefault("x-forwarded-host", asked.host)
    asked.passed_on += forwarded.items()
    return asked


def returned(headers: Iterable[tuple[str, str]], *, to_head: bool) -> list[tuple[bytes, bytes]]:
    """Return what a client gets of the headers of an answer, in their order, each by itself.

    :param to_head: Whether HEAD was asked: the length is the function's to say, which knows what does not come.
    """
    return [
        (name.encode("latin-1", "replace"), value.encode("utf-8"))
        for name, value in headers
        if name not in HOP_BY_HOP and (name not in _REPLACED or (to_head and name == LENGTH))
    ]


def text_of(value: bytes) -> str:
    """Return the text of a header, which is UTF-8, or else has a character for each byte."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _note(asked: Asked, name: str, value: str) -> None:
    """Take note of a header that is not simply passed on."""
    if name in _FIELDS:
        setattr(asked, _FIELDS[name], value)
    elif name in _FORWARDED:
        before = asked.forwarded.get(name)
        asked.forwarded[name] = f"{before}, {value}" if before else value
    elif name in _ALSO_READ:
        if name == "prefer" and name in asked.options:
            # RFC 7240, 2: several are as one with commas.
            asked.options[name] += f", {value}"
        else:
            _add_option(asked, name, value)
        asked.passed_on.append((name, value))
    elif name == "content-length":
        asked.length = int(value)
    elif name == "connection":
        asked.of_connection |= {each.strip().lower() for each in value.split(",")}


def _add_option(asked: Asked, name: str, value: str) -> None:
    if name in asked.options:
        raise BadHeaderError(name, "must be there once")
    asked.options[name] = value


def _shows_key(authorization: str) -> bool:
    """Tell whether a header shows a key of homing's, which no function may see."""
    return _KEY.search(shown_key(authorization)) is not None
