"""API keys as plain values, and the requests for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from homing._core import check, convert
from homing._core.names import Scope
from homing._core.request_id import request_id_of
from homing.v1 import key_service_pb2

_SCOPES: Final = convert.numbered(Scope, key_service_pb2.DESCRIPTOR.enum_types_by_name["Scope"])
_NUMBERS: Final = {scope: number for number, scope in _SCOPES.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """What is known of an API key; the key itself is shown once, when it is made."""

    id: str
    """The id that the server gave it; the key itself begins with ``hk_`` and this."""
    name: str
    """Its name, which records show as their caller."""
    scopes: Sequence[Scope]
    """What it allows."""
    functions: Sequence[str]
    """The functions that it allows it for; empty for all."""
    max_per_second: float | None
    """How many calls and invocations in a second it allows, each server for itself; None for any number."""
    create_time: datetime | None
    """When it was made."""
    expire_time: datetime | None
    """When it ends; None where it does not."""
    message: key_service_pb2.Key = field(repr=False, compare=False)
    """The key as the server sent it, with what this SDK does not show; not to be changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewApiKey:
    """An API key that was just made."""

    api_key: ApiKey
    """What is known of it from now on."""
    duplicate: bool
    """Whether an earlier call with the same request id made it."""
    secret: str = field(repr=False)
    """The key itself, for ``Client(api_key=...)``. The server never shows it again, but to the same call."""


def create_request(
    name: str,
    *,
    scopes: Sequence[Scope | str],
    functions: Sequence[str] | None,
    max_per_second: float | None,
    expires: datetime | timedelta | float | None,
    request_id: str | None,
) -> key_service_pb2.CreateKeyRequest:
    """Return the request for a new key. It always has a request id, so it is idempotent.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    key = key_service_pb2.Key(
        name=check.text("name", name),
        scopes=[_scope(scope) for scope in check.texts("scopes", scopes)],
        functions=check.texts("functions", functions),
        max_per_second=0 if max_per_second is None else check.number("max_per_second", max_per_second),
    )
    if expires is not None:
        end = (
            check.moment("expires", expires)
            if isinstance(expires, datetime)
            else check.from_now("expires", expires, zero=False)
        )
        key.expire_time.FromDatetime(end)
    return key_service_pb2.CreateKeyRequest(key=key, request_id=request_id_of(request_id))


def api_key(message: key_service_pb2.Key) -> ApiKey:
    """Return a key."""
    return ApiKey(
        id=message.id,
        name=message.name,
        scopes=tuple(_SCOPES.get(scope, Scope.UNKNOWN) for scope in message.scopes),
        functions=tuple(message.functions),
        max_per_second=message.max_per_second or None,
        create_time=convert.time(message, "create_time"),
        expire_time=convert.time(message, "expire_time"),
        message=message,
    )


def _scope(name: str) -> key_service_pb2.Scope.ValueType:
    try:
        scope = Scope(name.upper())
    except ValueError:
        scope = Scope.UNKNOWN
    if scope is Scope.UNKNOWN:
        known = ", ".join(each.value.lower() for each in _SCOPES.values())
        raise check.invalid("scopes", f"must be among {known}, one is {name!r}")
    return key_service_pb2.Scope.ValueType(_NUMBERS[scope])
