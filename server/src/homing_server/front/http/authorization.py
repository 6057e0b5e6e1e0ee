"""How a key is shown over HTTP: as `Bearer KEY`, or as the password of any user, as `faas-cli login` does it."""

from __future__ import annotations

import base64
import binascii
from typing import Final

_BASIC: Final = "basic "


def is_basic(authorization: str) -> bool:
    """Tell whether the header shows a user and a password, which browsers remember and send again by themselves."""
    return authorization[: len(_BASIC)].lower() == _BASIC


def shown_key(authorization: str) -> str:
    """Return what the header shows as `Bearer KEY`; empty where it shows nothing.

    `faas-cli` sends a Bearer without a token where nobody has logged in, which shows nothing either.
    """
    if is_basic(authorization):
        try:
            credentials = base64.b64decode(authorization[len(_BASIC) :], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return authorization
        return f"Bearer {credentials.partition(':')[2]}"
    return "" if authorization.strip().lower() == "bearer" else authorization
