"""The ids of requests, which make calls idempotent."""

from __future__ import annotations

import uuid
from typing import Final

from homing._core import check

_MAX_CHARACTERS: Final = 128


def request_id_of(given: str | None) -> str:
    """Return the id that a request goes under: the caller's, or a new one.

    :raises TypeError: It is no str.
    :raises InvalidRequestError: It is not 1 to 128 printable ASCII characters.
    """
    if given is None:
        return str(uuid.uuid4())
    text = check.text("request_id", given)
    if not (1 <= len(text) <= _MAX_CHARACTERS and text.isascii() and text.isprintable()):
        raise check.invalid("request_id", f"must be 1 to {_MAX_CHARACTERS} printable ASCII characters, is {text!r}")
    return text
