"""Opaque tokens, page tokens and resume tokens: what a caller gives back to go on where it was.

They are not secret, but sealed with a checksum, so that a token which was cut or made up is refused and not misread.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

from homing_server.errors import ApiError, Violation, invalid_request

_VERSION = 1
_MAX_INT = 2**63 - 1
"""What the store can compare with."""


def encode_token(kind: str, content: dict[str, Any]) -> str:
    """Return a token of a kind, URL-safe."""
    body = json.dumps([_VERSION, kind, content], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.crc32(body).to_bytes(4) + body).rstrip(b"=").decode()


def decode_token(kind: str, token: str, *, field: str, holds: Mapping[str, type[int | str]]) -> dict[str, Any]:
    """Return what a token of a kind holds.

    :param field: Where the token stands in the request.
    :param holds: The names and types of what it must hold.
    :raises ApiError: INVALID_ARGUMENT.
    """
    try:
        sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        seal, body = sealed[:4], sealed[4:]
        if int.from_bytes(seal) == zlib.crc32(body):
            version, actual, content = json.loads(body)
            if version == _VERSION and actual == kind and _holds(content, holds):
                return dict(content)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise _refused(field)


def _holds(content: Any, wanted: Mapping[str, type[int | str]]) -> bool:
    """Tell whether somebody made the content up: the seal is no secret."""
    return (
        isinstance(content, dict)
        and content.keys() == wanted.keys()
        and all(type(value) is wanted[name] for name, value in content.items())
        and all(abs(value) <= _MAX_INT for value in content.values() if isinstance(value, int))
    )


def _refused(field: str) -> ApiError:
    return invalid_request([Violation(field=field, description="is not a token that this server gave out")])
