"""Many invocations submitted at once: how they are cut into calls, and what came of each."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from homing._core import status
from homing._core.bodies import is_large
from homing._core.options import AsyncOptions, InvocationRequest, accept_request
from homing.errors import InvalidRequestError, PayloadTooLargeError, RequestError, UnavailableError
from homing.v1 import invocation_service_pb2, payload_pb2

MAX_BATCH: Final = 1000
"""So many invocations go in one call at the most."""
MAX_CALL: Final = 15 * 1024 * 1024
"""The requests of one call have so many bytes at the most: a server takes messages of 16 MiB."""
_FRAME: Final = 8
"""The bytes that a message needs around each request."""

Request = invocation_service_pb2.InvokeAsyncRequest
Accepted = invocation_service_pb2.InvokeAsyncResponse
Chunk = Sequence[int]
"""The places in the batch of the requests that go in one call."""


class Batch:
    """The requests of a batch, what is still to be sent, and the outcome of each request in its place."""

    def __init__(self, requests: Iterable[InvocationRequest]) -> None:
        """Build all requests before any is sent.

        :raises TypeError: A request is of the wrong type, or holds one; the error tells its place.
        """
        self._requests: list[Request] = []
        self._outcomes: list[Accepted | RequestError | None] = []
        for place, request in enumerate(requests):
            if not isinstance(request, InvocationRequest):
                raise TypeError(f"requests[{place}] must be an InvocationRequest, not {type(request).__name__}")
            try:
                self._requests.append(accept_request(request))
                self._outcomes.append(None)
            except TypeError as err:
                raise TypeError(f"requests[{place}]: {err}") from None
            except InvalidRequestError as err:  # this one is refused here instead of by the server
                self._requests.append(Request(request_id=request.request_id or ""))
                self._outcomes.append(err)
        self._chunks: deque[Chunk] | None = None

    def large(self) -> Iterator[tuple[int, payload_pb2.Payload]]:
        """Yield the payloads that must be stored before the first call, each with its place."""
        for place, request in enumerate(self._requests):
            if is_large(request.spec.payload):
                yield place, request.spec.payload

    def refuse(self, place: int, error: RequestError) -> None:
        """Keep that a request cannot be made."""
        self._outcomes[place] = self._identified(place, error)

    def next_chunk(self) -> Chunk | None:
        """Return what goes in the next call; None when all is done."""
        if self._chunks is None:
            self._chunks = deque(self._cut())
        while self._chunks:
            chunk = self._chunks.popleft()
            if self._open(chunk):
                return chunk
        return None

    def message(self, chunk: Chunk) -> invocation_service_pb2.BatchInvokeAsyncRequest:
        """Return the call for what has no outcome of a chunk, or one that another try may better."""
        return invocation_service_pb2.BatchInvokeAsyncRequest(requests=[self._requests[at] for at in self._open(chunk)])

    def take(self, chunk: Chunk, response: invocation_service_pb2.BatchInvokeAsyncResponse) -> None:
        """Keep the outcomes of a call.

        :raises UnavailableError: Some of the chunk could not be decided; the same call may be retried.
        """
        for at, result in zip(self._open(chunk), response.results, strict=True):
            self._outcomes[at] = (
                result.accepted if result.HasField("accepted") else self._identified(at, status.error_of(result.error))
            )
        for at in chunk:
            undecided = self._outcomes[at]
            if isinstance(undecided, UnavailableError):
                raise undecided

    def fail(self, chunk: Chunk, error: RequestError) -> None:
        """Keep the failure of the whole call; where smaller messages may help, send them instead."""
        if isinstance(error, PayloadTooLargeError) and len(chunk) > 1:
            half = len(chunk) // 2
            assert self._chunks is not None, "the chunk came from there"
            self._chunks.extendleft((chunk[half:], chunk[:half]))
            return
        for at in chunk:
            if self._outcomes[at] is None:
                self._outcomes[at] = self._identified(at, copy.copy(error))

    def decided(self) -> Iterator[tuple[Accepted | RequestError, str]]:
        """Yield the outcome of each request, with its request id, when all is done."""
        for outcome, request in zip(self._outcomes, self._requests, strict=True):
            assert outcome is not None, "every chunk was sent"
            yield outcome, request.request_id

    def _open(self, chunk: Chunk) -> list[int]:
        return [at for at in chunk if not isinstance(self._outcomes[at], Accepted) and self._may_change(at)]

    def _may_change(self, at: int) -> bool:
        outcome = self._outcomes[at]
        return outcome is None or isinstance(outcome, UnavailableError)

    def _identified(self, at: int, error: RequestError) -> RequestError:
        error.request_id = self._requests[at].request_id
        return error

    def _cut(self) -> Iterable[Chunk]:
        chunk: list[int] = []
        size = 0
        for at, request in enumerate(self._requests):
            if self._outcomes[at] is not None:
                continue
            more = request.ByteSize() + _FRAME
            if chunk and (len(chunk) == MAX_BATCH or size + more > MAX_CALL):
                yield chunk
                chunk, size = [], 0
            chunk.append(at)
            size += more
        if chunk:
            yield chunk


def requests_of(
    what: str | Iterable[InvocationRequest], payloads: Iterable[object] | None, options: AsyncOptions
) -> Iterable[InvocationRequest]:
    """Return the requests that the arguments of ``invoke_batch`` mean.

    :raises TypeError: They do not go together.
    """
    if isinstance(what, str):
        if payloads is None:
            raise TypeError("invoke_batch needs the payloads, beside the name of a function")
        if isinstance(payloads, (str, bytes)):
            raise TypeError(f"payloads must be several, not one {type(payloads).__name__}")
        return [InvocationRequest(function=what, payload=payload, **options) for payload in payloads]
    if payloads is not None or options:
        raise TypeError("invoke_batch takes payloads and options with the name of a function only")
    return what
