"""What clients are answered: an outcome as HTTP has it, and refusals in a line of text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import Send

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Blob, Header
from homing_core import limits
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import StreamHead
from homing_server.errors import ApiError
from homing_server.front.http.gateway.headers import returned
from homing_server.front.http.gateway.options import named_by_headers
from homing_server.front.http.status import error_headers, status_code
from homing_server.payloads.blobs import Blobs

RawHeaders = list[tuple[bytes, bytes]]

TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")

_WITHOUT_BODY: Final = frozenset({204, 304})
_BY_STATE: Final[Mapping[int, int]] = {
    api.INVOCATION_STATE_TIMED_OUT: 504,
    api.INVOCATION_STATE_EXPIRED: 504,
    api.INVOCATION_STATE_INVALID: 404,
}
"""The status where there is no answer of the function; 502 of other states."""
_NO_INSTANCE: Final = frozenset(
    {FailureReason.START_FAILED, FailureReason.IMAGE_NOT_FOUND, FailureReason.SECRETS_UNAVAILABLE}
)
"""Why there was no instance to ask: 503, since there may be one later."""
_NOT_OF_FUNCTION: Final = (b"x-openfaas-internal", b"proxy")
"""Tells those who call functions through OpenFaaS that the function has not been asked, so that they may try again."""
_RETRY_SECONDS: Final = 5
_TOO_LONG: Final[Mapping[str, int]] = {"spec.http.path": 414, "spec.http.query": 414, "spec.http.headers": 431}
"""The status where one of these is too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer that is ready to be sent."""

    status: int
    headers: RawHeaders
    body: bytes | Blob = b""
    sent: bool = False
    """Whether it has gone out already, as it came."""
    to_head: bool = False
    """Whether it is the function's to HEAD, whose length is that of a body which does not come."""

    async def send(self, send: Send, blobs: Blobs) -> None:
        """Send it, a stored body in parts."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        body = self.body
        if self.status in _WITHOUT_BODY:
            body = b""
        if isinstance(body, bytes):
            if self.status not in _WITHOUT_BODY and not (self.to_head and (not body or self._has_length())):
                self.headers.append((b"content-length", b"%d" % len(body)))
            await send(start)
            await send({"type": "http.response.body", "body": body})
            return
        self.headers.append((b"content-length", b"%d" % body.size))
        await send(start)
        async with contextlib.aclosing(blobs.parts(body.id, limits.MAX_PART)) as parts:
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _has_length(self) -> bool:
        return any(name == b"content-length" for name, _ in self.headers)


def answer_of(invocation: api.Invocation, *, asked_type: str, to_head: bool = False) -> Answer:
    """Return what the client of an ended invocation gets: the function's answer, or why there is none.

    :param asked_type: The content type of the request, which stands for that of an answer without one.
    :param to_head: Whether HEAD was asked.
    """
    result = invocation.result
    if not _is_answered(invocation):
        failure = invocation.failure
        status = _BY_STATE.get(invocation.state, 502)
        words = f"{failure.reason or 'FAILED'}: {failure.message}"
        if failure.reason in _NO_INSTANCE:
            return refused(503, words, (b"retry-after", b"%d" % _RETRY_SECONDS), _NOT_OF_FUNCTION)
        return refused(status, words)
    status = _status_of(result.status_code)
    headers = _headers_of(status, result.headers, result.payload.content_type or asked_type, to_head=to_head)
    body = result.payload.blob if result.payload.HasField("blob") else result.payload.data
    return Answer(status=status, headers=headers, body=body, to_head=to_head)


def head_of(stream: StreamHead, *, asked_type: str) -> Answer:
    """Return how an answer begins that goes out as it comes, with its length where the function has said it."""
    status = _status_of(stream.status_code)
    headers = _headers_of(status, stream.headers, stream.content_type or asked_type)
    if stream.HasField("content_length"):
        headers.append((b"content-length", b"%d" % stream.content_length))
    return Answer(status=status, headers=headers, sent=True)


def is_whole(invocation: api.Invocation) -> bool:
    """Tell whether an answer that has ended so, after it went out as it came, was one to its end."""
    return _is_answered(invocation)


def refused(status: int, words: str, *headers: tuple[bytes, bytes]) -> Answer:
    """Return a refusal."""
    return Answer(status=status, headers=[TEXT, *headers], body=f"{words}\n".encode())


def answer_of_error(error: ApiError) -> Answer:
    """Return what tells a client of an error."""
    status = status_code(error)
    if len(error.violations) == 1:
        (violation,) = error.violations
        if "must have at most" in violation.description:
            status = _TOO_LONG.get(violation.field, status)
    headers = [(name.lower().encode(), value.encode()) for name, value in error_headers(error).items()]
    return refused(status, named_by_headers(error), *headers)


def _status_of(answered: int) -> int:
    """Return a status as it can be passed on: what HTTP has none for is a server's fault (RFC 9110, 15)."""
    return answered if 200 <= answered <= 599 else 502


def _headers_of(status: int, given: Iterable[Header], content_type: str, *, to_head: bool = False) -> RawHeaders:
    headers = returned(((header.name, header.value) for header in given), to_head=to_head)
    if status not in _WITHOUT_BODY and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", (content_type or "text/plain").encode()))
    return headers


def _is_answered(invocation: api.Invocation) -> bool:
    """Tell whether the function has answered, and the last attempt at that."""
    if not invocation.HasField("result") or invocation.state == api.INVOCATION_STATE_TIMED_OUT:
        return False
    if invocation.state == api.INVOCATION_STATE_SUCCEEDED:
        return True
    return invocation.failure.reason in {FailureReason.HTTP_STATUS, FailureReason.EXIT_STATUS}
