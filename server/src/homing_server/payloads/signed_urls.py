"""The URLs by which workers read and write bodies that are too large for messages.

Each is good for one method on one thing until it expires, and says so itself: nothing is kept of it. All servers of a
store sign with the same key.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from typing import Final

from homing.v1.payload_pb2 import Payload
from homing_core.wire.v1 import BodyAccess

BLOBS: Final = "/v1/blobs/"
"""The path of a blob, before its id."""
RESULTS: Final = "/v1/results/"
"""The path to which the result of an invocation is written, before the invocation's id."""
STREAMS: Final = "/v1/streams/"
"""The path to which the answer of an invocation is streamed, before the invocation's id."""

LIFETIME_SECONDS: Final = 7 * 24 * 3600
"""A worker may read and write for so many seconds after the last moment at which it may start.

That is more than attempts in a row take. Where they take more still the next dispatch brings new URLs.
"""


class SignedUrls:
    """Signs URLs and checks them."""

    def __init__(self) -> None:
        self._base = ""
        # Nobody knows it: until there is the key of the store no URL is good, also where requests come before that.
        self._key = secrets.token_bytes(32)

    def open(self, base: str, key: bytes) -> None:
        """Begin to sign.

        :param base: Where workers reach the data port: ``http://HOST:PORT``, perhaps with a path.
        :param key: The secret that the servers of a store share.
        """
        self._base = base.rstrip("/")
        self._key = key

    @property
    def base(self) -> str:
        """Where workers reach this server's HTTP port, without a slash at the end."""
        return self._base

    def access(self, invocation_id: str, payload: Payload, *, start_by_us: int = 0) -> BodyAccess:
        """Return what lets a worker read the payload of an invocation, where it is stored apart, and write its result.

        :param start_by_us: The invocation may wait for its start until then; 0 for no later than now.
        """
        expires = max(int(time.time()), start_by_us // 1_000_000) + LIFETIME_SECONDS
        access = BodyAccess(result_url=self._sign("PUT", RESULTS + invocation_id, expires))
        if payload.HasField("blob"):
            access.payload_url = self._sign("GET", BLOBS + payload.blob.id, expires)
        return access

    def streaming(self, invocation_id: str) -> str:
        """Return what lets a worker stream the answer of an invocation to this server, where its caller waits."""
        return self._sign("POST", STREAMS + invocation_id, int(time.time()) + LIFETIME_SECONDS)

    def reading(self, payload: Payload) -> str:
        """Return what lets a worker read a body; empty where it is not stored apart."""
        return (
            self._sign("GET", BLOBS + payload.blob.id, int(time.time()) + LIFETIME_SECONDS)
            if payload.HasField("blob")
            else ""
        )

    def allows(self, method: str, path: str, *, expires: str, signature: str) -> bool:
        """Tell whether a request was signed here and has not expired."""
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        good = hmac.compare_digest(self._signature(method, path, int(expires)), signature.encode("utf-8", "replace"))
        return good and time.time() < int(expires)

    def _sign(self, method: str, path: str, expires: int) -> str:
        signature = self._signature(method, path, expires).decode()
        return f"{self._base}{path}?expires={expires}&signature={signature}"

    def _signature(self, method: str, path: str, expires: int) -> bytes:
        digest = hmac.digest(self._key, f"{method}\n{path}\n{expires}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=")
