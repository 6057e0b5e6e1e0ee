"""Errors as homing's server gives them.

The details are a google.rpc.Status, which is written here byte by byte: the SDK brings no code for google/rpc/*.proto,
for the reason that is told where it reads them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from homing._core.status import DETAILS_KEY


@dataclass(frozen=True, kw_only=True)
class Refusal(Exception):  # noqa: N818 - it is told to the caller, not raised to one
    """A call that ends with an error."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    field: str = ""
    """The field of the request that is at fault, where one is."""

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        """End a call with it."""
        info = _text(1, self.reason) + _text(2, "homing.dev")
        for key, value in self.metadata.items():
            info += _field(3, _text(1, key) + _text(2, value))
        details = _detail("ErrorInfo", info)
        if self.field:
            details += _detail("BadRequest", _field(1, _text(1, self.field) + _text(2, self.message)))
        status = b"\x08" + _varint(self.code.value[0]) + _text(2, self.message) + details
        context.set_trailing_metadata(((DETAILS_KEY, status),))
        context.abort(self.code, self.message)
        raise AssertionError("abort has ended the call")


def _detail(name: str, content: bytes) -> bytes:
    return _field(3, _text(1, f"type.googleapis.com/google.rpc.{name}") + _field(2, content))


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def served(method: Callable[[Any, Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    """Return the method of a service, with what a test said of it, and with errors as a server gives them."""

    def serve(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            self.state.check(method.__name__)
            return method(self, request, context)
        except Refusal as refusal:
            refusal.abort(context)

    return serve
