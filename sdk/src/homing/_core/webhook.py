"""What a receiver does with the deliveries that homing sends: tell that they are homing's own.

They are signed the way of Standard Webhooks 1.0 (https://www.standardwebhooks.com).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from homing._core import check
from homing._core.spec import Seconds
from homing.errors import CallbackVerificationError

_ID: Final = "webhook-id"
_TIMESTAMP: Final = "webhook-timestamp"
_SIGNATURE: Final = "webhook-signature"
_PREFIX: Final = "whsec_"
_MIN_KEY: Final = 24
_MAX_KEY: Final = 64
_VERSION: Final = "v1,"
_SECONDS: Final = re.compile(r"[0-9]{1,11}")


class Headers(Protocol):
    """The headers of a request, of whichever web framework: what has ``items()``."""

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return pairs of names and values; the case of names does not matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedCallback:
    """What ``verify_callback`` tells of a request that is genuine."""

    id: str
    """The ``webhook-id``: the id of the delivery, the same in all its attempts. Who remembers it takes none twice."""
    time: datetime
    """When this attempt was made, by the sender's clock; aware and in UTC."""


def verify_callback(
    headers: Headers,
    body: bytes | bytearray | memoryview,
    secret: str | Sequence[str],
    *,
    tolerance: Seconds = 300.0,
    now: float | datetime | None = None,
) -> VerifiedCallback:
    """Check that a request was sent by homing, is unchanged, and is no old one that somebody sends again.

    ::

        try:
            callback = homing.verify_callback(request.headers, request.body, os.environ["WEBHOOK_SECRET"])
        except homing.CallbackVerificationError:
            return Response(status=401)

    :param headers: The headers as the web framework has them: a mapping, or whatever else has ``items()``.
    :param body: The body as it was received, byte for byte.
    :param secret: The signing key, ``whsec_…``; or several, any of which may have signed, while one is replaced.
    :param tolerance: How far the time of the attempt may be from now, in seconds or as a timedelta.
    :param now: The present time, in seconds since the epoch or as a datetime with a time zone; by default the clock's.
    :raises CallbackVerificationError: It is not genuine; the message says which check it failed.
    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: A secret is none, or another argument breaks a rule.
    """
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"body must be the bytes that were received, not {type(body).__name__}")
    keys = _keys(secret)
    allowed = check.seconds("tolerance", tolerance)
    present = _present(now)
    found = _found(headers)
    id_, timestamp = _only(found, _ID), _only(found, _TIMESTAMP)
    signatures = " ".join(_present_values(found, _SIGNATURE)).split()
    if not _SECONDS.fullmatch(timestamp):
        raise CallbackVerificationError(f"{_TIMESTAMP}: is no number of seconds since the epoch")
    age = present - int(timestamp)
    if age > allowed:
        raise CallbackVerificationError(f"{_TIMESTAMP}: is too old: {age:.0f} s, more than {allowed:g} s")
    if -age > allowed:
        raise CallbackVerificationError(f"{_TIMESTAMP}: is too new: {-age:.0f} s ahead, more than {allowed:g} s")
    given = [one.removeprefix(_VERSION).encode(errors="replace") for one in signatures if one.startswith(_VERSION)]
    if not given:
        raise CallbackVerificationError(f"{_SIGNATURE}: has no signature of version v1")
    if not _signed(keys, f"{id_}.{timestamp}.".encode(errors="replace") + bytes(body), given):
        raise CallbackVerificationError(
            f"{_SIGNATURE}: no signature matches: it is of another key, or the request is not as it was sent"
        )
    return VerifiedCallback(id=id_, time=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(timestamp)))


def _signed(keys: Sequence[bytes], content: bytes, given: Sequence[bytes]) -> bool:
    # All are compared whichever match, so that the time it takes tells nothing.
    matches = 0
    for key in keys:
        expected = base64.b64encode(hmac.digest(key, content, "sha256"))
        for one in given:
            matches += hmac.compare_digest(expected, one)
    return matches > 0


def _keys(secret: str | Sequence[str]) -> Sequence[bytes]:
    if isinstance(secret, str):
        return [_key("secret", secret)]
    if isinstance(secret, (bytes, bytearray)) or not isinstance(secret, Sequence):
        raise TypeError(f"secret must be str or several, not {type(secret).__name__}")
    if not secret:
        raise check.invalid("secret", "must be at least one")
    return [_key(f"secret[{place}]", one) for place, one in enumerate(secret)]


def _key(name: str, secret: object) -> bytes:
    if not isinstance(secret, str):
        raise TypeError(f"{name} must be str, not {type(secret).__name__}")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not _MIN_KEY <= len(key) <= _MAX_KEY:
        raise check.invalid(name, f"must be {_PREFIX} and {_MIN_KEY} to {_MAX_KEY} bytes in base64")
    return key


def _present(now: float | datetime | None) -> float:
    if now is None:
        return time.time()
    return check.moment("now", now).timestamp() if isinstance(now, datetime) else check.number("now", now)


def _found(headers: Headers) -> dict[str, list[str]]:
    if not hasattr(headers, "items"):
        raise TypeError(f"headers must be a mapping, or have items(), not {type(headers).__name__}")
    found: dict[str, list[str]] = {_ID: [], _TIMESTAMP: [], _SIGNATURE: []}
    for name, value in headers.items():
        values = found.get(name.lower()) if isinstance(name, str) else None
        if values is not None:
            if not isinstance(value, str):
                raise TypeError(f"the header {name} must be str, not {type(value).__name__}")
            values.append(value)
    return found


def _present_values(found: dict[str, list[str]], name: str) -> list[str]:
    if not any(found[name]):
        raise CallbackVerificationError(f"{name}: the header is missing")
    return found[name]


def _only(found: dict[str, list[str]], name: str) -> str:
    values = _present_values(found, name)
    if len(values) > 1:
        raise CallbackVerificationError(f"{name}: the header is there more than once")
    return values[0]
