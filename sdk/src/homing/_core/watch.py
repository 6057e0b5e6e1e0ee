"""How far a watch has come, and what breaks it for good."""

from __future__ import annotations

from typing import Final, Protocol

import grpc
from tenacity import RetryCallState, wait_random_exponential

from homing._core import convert
from homing._core.calls import wait_asked_for
from homing._core.values import WatchEvent
from homing.errors import RequestError, UnavailableError
from homing.v1 import invocation_pb2, invocation_service_pb2

SILENCE_LIMIT: Final = 45.0
"""A stream on which nothing came for so long, in seconds, is dead: the server sends something every 15 s."""
RECONNECT_JITTER: Final = 0.25
"""The first try to reconnect comes after up to so many seconds, or all watches of a lost server came back at once."""
_BACKOFF: Final = wait_random_exponential(multiplier=0.25, max=10.0)
_TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        # What servers, proxies and broken connections end streams with, beside the honest UNAVAILABLE.
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class Cancellable(Protocol):
    """The part of the call of a stream that ends it; gRPC has no public type for both of its kinds."""

    def cancel(self) -> bool: ...


class WatchProgress:
    """What a watch asks for and the last message it has dealt with."""

    def __init__(self, wanted: invocation_pb2.InvocationFilter, resume_token: str, *, transitions: bool) -> None:
        self._wanted = wanted
        self._transitions = transitions
        self.resume_token = resume_token

    def request(self) -> invocation_service_pb2.WatchResultsRequest:
        """Return the request that goes on where the watch is."""
        return invocation_service_pb2.WatchResultsRequest(
            filter=self._wanted, resume_token=self.resume_token, include_transitions=self._transitions
        )

    def accept(self, message: invocation_service_pb2.WatchResultsResponse) -> WatchEvent | None:
        """Take a message; return its event, or None for a bookmark."""
        self.resume_token = message.resume_token
        if message.WhichOneof("event") != "invocation":
            return None
        return WatchEvent(resume_token=message.resume_token, invocation=convert.invocation(message.invocation))


def is_resumable(error: BaseException) -> bool:
    """Tell whether a stream that ended so can be opened again where it was."""
    if not isinstance(error, RequestError):
        return False
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.reason == "SLOW_CONSUMER" or error.retry_after is not None
    return error.code in _TRANSIENT


def wait_before_reconnect(state: RetryCallState) -> float:
    """Return the seconds to wait after a try to open the stream: exponential with full jitter."""
    return wait_asked_for(state) + _BACKOFF(state)


def lost(target: str, why: str) -> UnavailableError:
    """Return the error of a stream that ended without an error of its own."""
    return UnavailableError(f"{target}: {why}", code=grpc.StatusCode.UNAVAILABLE)
