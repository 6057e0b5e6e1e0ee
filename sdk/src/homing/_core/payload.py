"""How a payload travels: str as text, bytes as they are, all else as JSON."""

from __future__ import annotations

import json
from typing import Final

from homing._core import check
from homing.errors import PayloadTooLargeError
from homing.v1 import payload_pb2

MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""The largest payload of an invocation, in bytes; larger results there are none either."""
MAX_INLINE: Final = 256 * 1024
"""The largest payload that goes along with a call; a larger one is stored first."""


def encode_payload(value: object, content_type: str | None) -> payload_pb2.Payload | None:
    """Return a payload as a message; None where there is neither a body nor a content type.

    :raises TypeError: The value is none that JSON can carry.
    :raises InvalidRequestError: The same, for a value such as NaN.
    :raises PayloadTooLargeError: It has more than 64 MiB.
    """
    given = None if content_type is None else check.text("content_type", content_type)
    if value is None:
        return None if given is None else payload_pb2.Payload(content_type=given)
    if isinstance(value, str):
        data, usual = check.text("payload", value).encode(), "text/plain; charset=utf-8"
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data, usual = bytes(value), "application/octet-stream"
    else:
        data, usual = _json(value), "application/json"
    if len(data) > MAX_PAYLOAD:
        raise PayloadTooLargeError(size=len(data), limit=MAX_PAYLOAD)
    return payload_pb2.Payload(content_type=usual if given is None else given, data=data)


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except TypeError as err:
        raise TypeError(f"payload must be str, bytes or what JSON can carry: {err}") from None
    except (ValueError, RecursionError) as err:
        raise check.invalid("payload", f"cannot be written as JSON: {err}") from None
