"""What is asked of many invocations at once, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc

from homing._core import check, convert
from homing._core.names import InvocationState
from homing._core.request_id import request_id_of
from homing.errors import RequestError
from homing.v1 import invocation_pb2, invocation_service_pb2

Counts = TypeVar("Counts")

_BROKEN: Final = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
"""What proxies and broken connections end streams with, beside the honest UNAVAILABLE."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InvocationCounts:
    """How many invocations match, by state. Counting stops at 10,000 for each state."""

    by_state: Mapping[InvocationState, int]
    """The states in which there are any."""
    more: frozenset[InvocationState]
    """The states in which there are more than were counted."""

    @property
    def total(self) -> int:
        """How many were counted in all states; where ``more`` is not empty, there are more."""
        return sum(self.by_state.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkStopped:
    """How many invocations ``bulk_stop`` stopped, in all calls with its request id."""

    matched: int
    """How many matched and had not ended. Those that end before their turn are not stopped."""
    stopped: int
    """How many of them are STOPPED."""
    stopping: int
    """How many of them are STOPPING: they are in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkRerun:
    """How many invocations ``bulk_rerun`` runs again, in all calls with its request id."""

    matched: int
    """How many matched and had ended."""
    accepted: int
    """How many of them run again."""
    refused: int
    """How many cannot run again, because their functions or stored bodies are gone, or what they ask for is not
    allowed."""


def counts(message: invocation_service_pb2.CountInvocationsResponse) -> InvocationCounts:
    """Return counts as a value."""
    return InvocationCounts(
        by_state={convert.state(one.state): one.count for one in message.counts},
        more=frozenset(convert.state(one.state) for one in message.counts if one.more),
    )


def stop_request(
    wanted: invocation_pb2.InvocationFilter, *, reason: str | None, dry_run: bool, request_id: str | None
) -> invocation_service_pb2.BulkStopRequest:
    """Return the request to stop many.

    :raises TypeError: An argument is of the wrong type.
    """
    return invocation_service_pb2.BulkStopRequest(
        filter=wanted,
        reason="" if reason is None else check.text("reason", reason),
        dry_run=check.flag("dry_run", dry_run),
        request_id=request_id_of(request_id),
    )


def stopped(message: invocation_service_pb2.BulkStopResponse) -> BulkStopped:
    """Return what came of a bulk stop as a value."""
    return BulkStopped(matched=message.matched, stopped=message.stopped, stopping=message.stopping)


def rerun_request(
    wanted: invocation_pb2.InvocationFilter,
    *,
    dry_run: bool,
    max_per_second: float | None,
    include_rerun: bool,
    request_id: str | None,
) -> invocation_service_pb2.BulkRerunRequest:
    """Return the request to run many again.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    return invocation_service_pb2.BulkRerunRequest(
        filter=wanted,
        dry_run=check.flag("dry_run", dry_run),
        max_per_second=0 if max_per_second is None else check.number("max_per_second", max_per_second),
        include_rerun=check.flag("include_rerun", include_rerun),
        request_id=request_id_of(request_id),
    )


def rerun(message: invocation_service_pb2.BulkRerunResponse) -> BulkRerun:
    """Return what came of a bulk re-run as a value."""
    return BulkRerun(matched=message.matched, accepted=message.accepted, refused=message.refused)


def reporter(on_progress: Callable[[Counts], object] | None) -> Callable[[Counts], object]:
    """Return what is told how far a call is.

    :raises TypeError: What is given cannot be called.
    """
    if on_progress is None:
        return lambda _: None
    if not callable(on_progress):
        raise TypeError(f"on_progress must be callable, not {type(on_progress).__name__}")
    return on_progress


def broke_off(error: RequestError) -> bool:
    """Tell whether the way to the server failed, and not the server."""
    return not error.reason and error.code in _BROKEN
