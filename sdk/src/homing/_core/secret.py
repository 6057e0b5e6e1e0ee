"""Secrets and signing keys as plain values, and the requests for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from homing._core import check, convert
from homing._core.request_id import request_id_of
from homing.v1 import secret_service_pb2, signing_key_service_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """What is known of a secret; its value is never shown."""

    name: str
    """Its name, which is also the name of the file that functions read it from."""
    version: int
    """Counts its values: 1 for the first."""
    create_time: datetime | None
    """When it was made."""
    update_time: datetime | None
    """When it was given its value."""
    message: secret_service_pb2.Secret = field(repr=False, compare=False)
    """The secret as the server sent it, with what this SDK does not show; not to be changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """What is known of a key that deliveries are signed with."""

    id: str
    """The id that the server gave it."""
    function: str | None
    """The function whose deliveries it signs; None for the key of all functions that have none of their own."""
    create_time: datetime | None
    """When it was made."""
    message: signing_key_service_pb2.SigningKey = field(repr=False, compare=False)
    """The key as the server sent it, with what this SDK does not show; not to be changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSigningKey:
    """A signing key that was just made."""

    signing_key: SigningKey
    """What is known of it from now on."""
    duplicate: bool
    """Whether an earlier call with the same request id made it."""
    key: str = field(repr=False)
    """The key itself, ``whsec_`` and base64, for the receivers. The server never shows it again, but to the
    same call."""


def value_of(value: str | bytes) -> bytes:
    """Return the value of a secret as bytes; text goes as UTF-8.

    :raises TypeError: It is neither.
    :raises InvalidRequestError: It is text that UTF-8 cannot carry.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"value must be str or bytes, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        # From here on nothing may carry the text, not even as the cause of an error.
        pass
    raise check.invalid("value", "is not valid Unicode text")


def rotate_request(
    function: str | None, key: str | None, request_id: str | None
) -> signing_key_service_pb2.RotateSigningKeyRequest:
    """Return the request for a new signing key. It always has a request id, so it is idempotent.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    return signing_key_service_pb2.RotateSigningKeyRequest(
        function="" if function is None else check.text("function", function),
        key="" if key is None else check.text("key", key),
        request_id=request_id_of(request_id),
    )


def secret(message: secret_service_pb2.Secret) -> Secret:
    """Return a secret."""
    return Secret(
        name=message.name,
        version=message.version,
        create_time=convert.time(message, "create_time"),
        update_time=convert.time(message, "update_time"),
        message=message,
    )


def signing_key(message: signing_key_service_pb2.SigningKey) -> SigningKey:
    """Return a signing key."""
    return SigningKey(
        id=message.id,
        function=message.function or None,
        create_time=convert.time(message, "create_time"),
        message=message,
    )
