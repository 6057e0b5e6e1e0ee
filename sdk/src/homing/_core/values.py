"""The records that the server keeps, as plain values. Times are aware and in UTC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.message import Message
from typing import Any

from homing._core.headers import Headers
from homing._core.names import (
    AttemptOutcome,
    DeliveryKind,
    DeliveryState,
    EventType,
    InvocationState,
    WaitReason,
)
from homing._core.policy import RetryPolicy
from homing.v1 import invocation_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an attempt, a delivery or an invocation failed."""

    reason: str
    """Why, for programs: a FailureReason, or what a later server says."""
    message: str
    """The same in words."""
    retryable: bool
    """Whether another attempt may help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """Refers to a body over 256 KiB, which is stored apart from its record; ``client.read_payload`` fetches it."""

    id: str
    """The id that the server gave it."""
    size: int
    """Its size in bytes."""
    sha256: bytes = field(repr=False)
    """Its digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The body of a request to a function."""

    content_type: str
    """Its media type; empty where none was given."""
    data: bytes = field(repr=False)
    """The body."""
    blob: Blob | None = None
    """Refers to a large body where it was not fetched, as in lists; ``data`` is empty then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer of a function."""

    status_code: int
    """The HTTP status code; 0 where the function gave no answer."""
    headers: Headers
    """The headers."""
    content_type: str
    """The media type of the body."""
    data: bytes = field(repr=False)
    """The body."""
    blob: Blob | None = None
    """Refers to a large body where it was not fetched, as in lists and watches; ``data`` is empty then."""
    cut: bool = False
    """Whether ``data`` is only the beginning of the body, which was passed on to its caller as it came."""
    streamed_size: int = 0
    """How many bytes of a body came that was passed on as it came; 0 where it was not."""

    @property
    def text(self) -> str:
        """The body as text, in the charset of its content type or else UTF-8; bytes that do not fit are replaced."""
        header = Message()
        header["content-type"] = self.content_type
        try:
            return self.data.decode(header.get_content_charset() or "utf-8", errors="replace")
        except LookupError:
            return self.data.decode(errors="replace")

    def json(self) -> Any:
        """Return the body read as JSON.

        :raises ValueError: The body is not JSON.
        """
        return json.loads(self.data)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try to run an invocation."""

    number: int
    """1 for the first attempt."""
    worker: str
    """The worker that ran it."""
    instance: str
    """The instance of the function that ran it."""
    function_revision: int
    """The revision of the function that it ran."""
    image_id: str
    """The id of the container image that it ran; empty where the function is no image."""
    start_time: datetime | None
    """When the request to the instance started."""
    end_time: datetime | None
    """When it ended."""
    outcome: AttemptOutcome | None
    """How it ended; None while it runs."""
    status_code: int
    """The HTTP status code of the answer; 0 where there was none."""
    failure: Failure | None
    """Why it failed."""
    next_delay: timedelta | None
    """The delay before the next attempt; None where there was none."""
    delay_reason: str
    """Where that delay comes from: ``BACKOFF`` or ``RETRY_AFTER``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An entry in an invocation's history."""

    time: datetime | None
    """When it happened."""
    type: EventType
    """What happened."""
    attempt: int
    """The attempt it belongs to; 0 where it belongs to none."""
    worker: str
    """The worker that reported it; empty where the server did."""
    detail: str
    """More about it, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryAttempt:
    """One try to deliver."""

    number: int
    """1 for the first attempt."""
    start_time: datetime | None
    """When it started."""
    duration: timedelta | None
    """How long it took."""
    status_code: int
    """The HTTP status code of the receiver; 0 where there was none."""
    failure: Failure | None
    """Why it failed; None where it did not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """Carries the outcome of an invocation to a callback or a destination."""

    id: str
    """The same in all attempts."""
    kind: DeliveryKind
    """What asked for it."""
    uri: str
    """Where it goes."""
    state: DeliveryState
    """Where it stands."""
    attempts: Sequence[DeliveryAttempt]
    """Its attempts so far."""
    create_time: datetime | None
    """When it was made."""
    end_time: datetime | None
    """When it was delivered or given up."""
    next_attempt_time: datetime | None
    """When the next attempt is due; None where none is planned."""
    caused: str | None
    """The id of the invocation that it became, where it went to ``function:NAME``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRequest:
    """A request to stop an invocation."""

    time: datetime | None
    """When it was asked for."""
    caller: str
    """Who asked."""
    reason: str
    """Why; empty where nothing was said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a running function says it is."""

    time: datetime | None
    """When it said so."""
    percent: float
    """From 0 to 100."""
    text: str
    """In words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """The record of one run of a function: what was asked, how it went and what came of it."""

    id: str
    """The id that the server gave it; ids sort by time."""
    function: str
    """The name of the function."""
    state: InvocationState
    """Where it stands."""
    wait_reason: WaitReason | None
    """Why it waits; None where it does not."""
    wait_until: datetime | None
    """Until when it waits, where that is known."""
    sync: bool
    """True for a call of ``invoke``."""
    caller: str
    """Who made it."""
    labels: Mapping[str, str]
    """The labels it was given."""
    payload: Payload | None
    """The body of the request; None unless it was asked for."""
    retry_policy: RetryPolicy | None
    """Its own retry policy; None where the function's applies."""
    attempt_timeout: timedelta | None
    """Its own limit for one attempt; None where the function's applies."""
    max_age: timedelta | None
    """How long it may wait for its first start; None where the function's applies."""
    schedule_time: datetime | None
    """When it was to start; None for at once."""
    callback_url: str | None
    """What receives the function's output."""
    on_success: Sequence[str]
    """Its own destinations for its envelope when it succeeded; empty where the function's apply."""
    on_failure: Sequence[str]
    """Its own destinations for its envelope when it ended otherwise; empty where the function's apply."""
    create_time: datetime | None
    """When it was accepted."""
    start_time: datetime | None
    """When its first attempt started."""
    end_time: datetime | None
    """When it ended."""
    attempt_count: int
    """The number of attempts that started."""
    attempts: Sequence[Attempt]
    """Every attempt."""
    events: Sequence[Event]
    """Its history."""
    deliveries: Sequence[Delivery]
    """Its deliveries."""
    result: Answer | None
    """The last answer of the function; kept for failed invocations too."""
    failure: Failure | None
    """Why it did not succeed."""
    rerun_of: str | None
    """The id of the invocation that this one runs again."""
    call_id: str
    """What ``X-Call-Id`` shows: its caller's choice, that of the invocation whose outcome caused it, or its id."""
    caused_by: str | None
    """The id of the invocation whose outcome caused this one."""
    depth: int
    """The length of the chain of invocations that caused this one; at most 16, where a chain ends."""
    stop_request: StopRequest | None
    """The request to stop it."""
    progress: Progress | None
    """The last progress that the function reported."""
    message: invocation_pb2.Invocation = field(repr=False, compare=False)
    """The record as the server sent it, with what this SDK does not show; not to be changed."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state.ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Result(Answer):
    """The answer of a function together with the record of the invocation that it ended."""

    invocation: Invocation = field(repr=False)
    """The whole record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchEvent:
    """An invocation that ended, or with transitions one that changed, seen by a watch."""

    resume_token: str = field(repr=False)
    """Resumes a watch after this event."""
    invocation: Invocation
    """The whole record."""

    @property
    def result(self) -> Result:
        """The answer of the function, whether it is a success or not; empty with status code 0 where it gave none."""
        return result_of(self.invocation)


def result_of(invocation: Invocation) -> Result:
    """Return an invocation's answer with its record; empty with status code 0 where there was no answer."""
    answer = invocation.result
    return Result(
        status_code=answer.status_code if answer else 0,
        headers=answer.headers if answer else Headers(),
        content_type=answer.content_type if answer else "",
        data=answer.data if answer else b"",
        blob=answer.blob if answer else None,
        cut=answer.cut if answer else False,
        streamed_size=answer.streamed_size if answer else 0,
        invocation=invocation,
    )
