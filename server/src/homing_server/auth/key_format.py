"""The form of API keys, and what is kept of them: `hk_ID_SECRET`, of which the store has the digest alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

_ID_BYTES: Final = 6
MATERIAL_BYTES: Final = _ID_BYTES + 32
"""What a key is made of: its id and 256 bits."""
_FORM: Final = re.compile(r"hk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NewKey:
    """A key that was just made."""

    id: str
    text: str = field(repr=False)
    """The key itself, for its owner."""


def new_key() -> NewKey:
    """Return a new key: 256 random bits behind an id."""
    return key_of(secrets.token_bytes(MATERIAL_BYTES))


def key_of(material: bytes) -> NewKey:
    """Return the key that is made of so many bytes, which nobody else may know."""
    key_id = material[:_ID_BYTES].hex()
    secret = base64.urlsafe_b64encode(material[_ID_BYTES:]).rstrip(b"=").decode()
    return NewKey(id=key_id, text=f"hk_{key_id}_{secret}")


def id_of(text: str) -> str | None:
    """Return the id of a key; None where it has not the form of one."""
    form = _FORM.fullmatch(text)
    return None if form is None else form[1]


def digest_of(text: str) -> bytes:
    """Return what is kept of a key. It is random through and through, so one round of SHA-256 hides it."""
    # Headers of HTTP may hold what is no text.
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def same(one: bytes, other: bytes) -> bool:
    """Tell whether two digests are the same, in a time that does not tell how far."""
    return hmac.compare_digest(one, other)


def key_in(authorization: str) -> str:
    """Return the key that `Bearer KEY` shows; empty where there is none."""
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""
