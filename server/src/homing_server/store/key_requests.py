"""Request ids under which API keys were made, for a day.

What is kept of a call are digests that only the server's secret key could make. Neither the request id nor the API key
can be made again from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from homing_server.store import schema

_requests = schema.key_requests

KEPT_US = 24 * 3600 * 1_000_000
"""For so many microseconds a request id stands for its call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRequest:
    """A call under a request id, as it is kept."""

    digest: bytes
    """Of who asked, and of the request id."""
    fingerprint: bytes
    """Of these and of what was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRequest:
    """A call that was made before."""

    fingerprint: bytes
    create_us: int


def find_key_request(connection: Connection, digest: bytes, *, now_us: int) -> KeptRequest | None:
    """Return the call that a request id stands for; None where it stands for none."""
    query = select(_requests.c.fingerprint, _requests.c.create_us).where(
        _requests.c.digest == digest, _requests.c.create_us > now_us - KEPT_US
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else KeptRequest(fingerprint=row.fingerprint, create_us=row.create_us)


def keep_key_request(connection: Connection, request: KeyRequest, *, now_us: int) -> None:
    """Remember a call, and forget those of more than a day ago."""
    connection.execute(delete(_requests).where(_requests.c.create_us <= now_us - KEPT_US))
    connection.execute(
        insert(_requests).values(digest=request.digest, fingerprint=request.fingerprint, create_us=now_us)
    )
