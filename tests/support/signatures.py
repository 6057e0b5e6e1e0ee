"""The signatures of whole bodies."""

from __future__ import annotations

from collections.abc import Sequence

from homing_core.signing import Signer


def signature(keys: Sequence[bytes], *, id_: str, timestamp: int, body: bytes) -> str:
    """Return the header ``webhook-signature`` as homing makes it."""
    signer = Signer(keys, id_=id_, timestamp=timestamp)
    signer.feed(body)
    return signer.signature()
