"""Signs deliveries the way of Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256, scheme ``v1``."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
"""How a key begins where people see it."""
MIN_KEY: Final = 24
MAX_KEY: Final = 64
_NEW_KEY: Final = 32


def new_key() -> bytes:
    """Return a key that nobody knows."""
    return secrets.token_bytes(_NEW_KEY)


def show_key(key: bytes) -> str:
    """Return a key as its receiver is given it: ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(key).decode()


def read_key(text: str) -> bytes:
    """Return the bytes of a key as people write it.

    :raises ValueError: It is none. The message does not repeat it.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not MIN_KEY <= len(key) <= MAX_KEY:
        raise ValueError(f"must be {PREFIX} and {MIN_KEY} to {MAX_KEY} bytes in base64")
    return key


class Signer:
    """Signs a body, which may be too large to be in memory, part by part."""

    def __init__(self, keys: Sequence[bytes], *, id_: str, timestamp: int) -> None:
        """Begin to sign.

        :param timestamp: When the attempt is made, in seconds since the epoch.
        """
        begin = f"{id_}.{timestamp}.".encode()
        self._digests = [hmac.new(key, begin, "sha256") for key in keys]

    def feed(self, part: bytes) -> None:
        """Take the next part of the body."""
        for digest in self._digests:
            digest.update(part)

    def signature(self) -> str:
        """Return the header ``webhook-signature`` of all that was fed: one signature for each key."""
        return " ".join("v1," + base64.b64encode(digest.digest()).decode() for digest in self._digests)
