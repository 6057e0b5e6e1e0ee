"""Dead letters: which a call concerns, what they are, and what came of calls about many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypedDict

import grpc

from homing._core import check, convert
from homing._core.filter import several, time_range
from homing._core.names import DeadLetterKind, InvocationState
from homing._core.request_id import request_id_of
from homing._core.values import Delivery, Failure
from homing.errors import NotFoundError
from homing.v1 import dead_letter_pb2, dead_letter_service_pb2

MAX_IDS: Final = 1000
"""So many dead letters at most are named in one call."""
_KINDS: Final = convert.numbered(DeadLetterKind, dead_letter_pb2.DESCRIPTOR.enum_types_by_name["DeadLetterKind"])


class DeadLetterOptions(TypedDict, total=False):
    """Which dead letters are meant; all conditions that are given must match. Times are datetimes with a time zone."""

    ids: str | Iterable[str] | None
    """The id of an invocation or a delivery, or any of at most 1,000."""
    kind: DeadLetterKind | None
    """Of this kind."""
    function: str | Iterable[str] | None
    """The name of a function, or any of several names."""
    since: datetime | None
    """Came to nothing at this time or later."""
    until: datetime | None
    """Came to nothing before this time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """An invocation or a delivery that came to nothing and that somebody is to look after."""

    id: str
    """The id of the invocation or of the delivery."""
    kind: DeadLetterKind
    """What it is of."""
    invocation_id: str
    """The id of the invocation; of a delivery, of that whose outcome it carries."""
    function: str
    """The function of that invocation."""
    state: InvocationState
    """The state in which that invocation ended."""
    time: datetime | None
    """When it came to nothing."""
    failure: Failure | None
    """Why."""
    delivery: Delivery | None
    """The delivery with its attempts, where it is of one."""
    message: dead_letter_pb2.DeadLetter = field(repr=False, compare=False)
    """The dead letter as the server sent it, with what this SDK does not show; not to be changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Redriven:
    """How many dead letters ``redrive`` tries again, in all calls with its request id."""

    matched: int
    """How many matched. Those that another call tries again or forgets before their turn are left out."""
    rerun: int
    """How many invocations run again."""
    redelivered: int
    """How many deliveries are made again."""
    refused: int
    """How many cannot be tried again, because their functions or stored bodies are gone, or what they ask for is not
    allowed. They stay dead letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Purged:
    """How many dead letters ``purge`` forgot, in all calls with its request id."""

    matched: int
    """How many matched."""
    purged: int
    """How many were forgotten."""


def dead_letter(message: dead_letter_pb2.DeadLetter) -> DeadLetter:
    """Return a dead letter as a value."""
    return DeadLetter(
        id=message.id,
        kind=_KINDS.get(message.kind, DeadLetterKind.UNKNOWN),
        invocation_id=message.invocation_id,
        function=message.function,
        state=convert.state(message.state),
        time=convert.time(message, "time"),
        failure=convert.failure(message),
        delivery=convert.delivery(message.delivery) if message.HasField("delivery") else None,
        message=message,
    )


def list_request(
    conditions: DeadLetterOptions, *, page_token: str | None
) -> dead_letter_service_pb2.ListDeadLettersRequest:
    """Return the request for the first page of a list.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    return dead_letter_service_pb2.ListDeadLettersRequest(
        filter=_filter(**conditions), page_token="" if page_token is None else check.text("page_token", page_token)
    )


def redrive_request(
    conditions: DeadLetterOptions, *, dry_run: bool, max_per_second: float | None, request_id: str | None
) -> dead_letter_service_pb2.RedriveDeadLettersRequest:
    """Return the request to try many again.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    return dead_letter_service_pb2.RedriveDeadLettersRequest(
        filter=_filter(**conditions),
        dry_run=check.flag("dry_run", dry_run),
        max_per_second=0 if max_per_second is None else check.number("max_per_second", max_per_second),
        request_id=request_id_of(request_id),
    )


def purge_request(
    conditions: DeadLetterOptions, *, dry_run: bool, request_id: str | None
) -> dead_letter_service_pb2.PurgeDeadLettersRequest:
    """Return the request to forget many.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    return dead_letter_service_pb2.PurgeDeadLettersRequest(
        filter=_filter(**conditions),
        dry_run=check.flag("dry_run", dry_run),
        request_id=request_id_of(request_id),
    )


def redriven(message: dead_letter_service_pb2.RedriveDeadLettersResponse) -> Redriven:
    """Return what came of a redrive as a value."""
    return Redriven(
        matched=message.matched, rerun=message.rerun, redelivered=message.redelivered, refused=message.refused
    )


def purged(message: dead_letter_service_pb2.PurgeDeadLettersResponse) -> Purged:
    """Return what came of a purge as a value."""
    return Purged(matched=message.matched, purged=message.purged)


def not_found(dead_letter_id: str) -> NotFoundError:
    """Return the error of an id that no dead letter has."""
    return NotFoundError(
        f"there is no dead letter {dead_letter_id!r}",
        code=grpc.StatusCode.NOT_FOUND,
        reason="DEAD_LETTER_NOT_FOUND",
        metadata={"dead_letter": dead_letter_id},
    )


def _filter(
    *,
    ids: str | Iterable[str] | None = None,
    kind: DeadLetterKind | None = None,
    function: str | Iterable[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dead_letter_pb2.DeadLetterFilter:
    named = [check.text("ids", one) for one in several("ids", ids)]
    if ids is not None and not named:
        # Without a condition all would be meant.
        raise check.invalid("ids", "must be at least one where they are given")
    if len(named) > MAX_IDS:
        raise check.invalid("ids", f"must be at most {MAX_IDS}, are {len(named)}")
    return dead_letter_pb2.DeadLetterFilter(
        ids=named,
        kind=_kind(kind),
        functions=[check.text("function", name) for name in several("function", function)],
        time=time_range("", since, until),
    )


def _kind(kind: DeadLetterKind | None) -> dead_letter_pb2.DeadLetterKind.ValueType:
    if kind is None:
        return dead_letter_pb2.DEAD_LETTER_KIND_UNSPECIFIED
    if not isinstance(kind, DeadLetterKind):
        raise TypeError(f"kind must be DeadLetterKind, not {type(kind).__name__}")
    if kind is DeadLetterKind.UNKNOWN:
        raise check.invalid("kind", "UNKNOWN is no kind to ask for")
    return dead_letter_pb2.DeadLetterKind.Value(f"DEAD_LETTER_KIND_{kind.value}")
