"""What a fake function answers."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from homing._core import check
from homing._core.headers import Headers, HeaderValues, header_messages
from homing._core.payload import encode_payload
from homing._core.policy import RetryPolicy
from homing._core.types import converter
from homing.v1 import payload_pb2
from homing.v1.log_service_pb2 import LogStream


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeCall:
    """One invocation that a fake server was asked for."""

    function: str
    """The name of the function."""
    payload: bytes = field(repr=False)
    """The body of the request."""
    content_type: str
    """Its media type; empty where there is no payload."""
    headers: Headers
    """Further headers of the request to the function."""
    method: str
    """Its method, ``POST`` unless another was asked for."""
    path: str
    """Its path, ``/`` unless another was asked for."""
    query: str
    """Its query string."""
    labels: Mapping[str, str]
    """The labels of the invocation."""
    call_id: str
    """What ``X-Call-Id`` shows: the caller's choice, or the id of the invocation."""
    callback_url: str | None
    """Where the output was to go; see ``FakeServer.deliveries``."""
    callback_headers: Headers
    """Further headers that the callback was to have."""
    on_success: Sequence[str]
    """Where the envelope was to go on success, as the call itself says."""
    on_failure: Sequence[str]
    """Where the envelope was to go otherwise, as the call itself says."""
    request_id: str | None
    """The request id of an asynchronous invocation."""
    invocation_id: str
    """The id that the fake server gave it."""
    sync: bool
    """Whether the caller waits: a call of ``invoke``."""
    schedule_time: datetime | None = None
    """When it was to start; None where nothing is said of it."""
    delay: timedelta | None = None
    """How much later it was to start; None where nothing is said of it."""
    max_age: timedelta | None = None
    """How long it was to wait for its first start at the most; None for as long as the function says."""
    attempt_timeout: timedelta | None = None
    """How long one attempt was to run at the most; None for as long as the function says."""
    retry_policy: RetryPolicy | None = None
    """Which failed attempts were to be made again, as the call itself says."""
    attempt: int = 1
    """The attempt that an answering callable is asked for."""

    @property
    def text(self) -> str:
        """The payload as text."""
        return self.payload.decode(errors="replace")

    def json(self) -> Any:
        """Return the payload read as JSON.

        :raises ValueError: It is not JSON.
        """
        return json.loads(self.payload)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one attempt, or several, come to."""

    answer: Callable[[FakeCall], object]
    status: int = 200
    headers: HeaderValues = field(default_factory=dict)
    content_type: str | None = None
    retry: bool = True
    timed_out: bool = False
    parts: Sequence[bytes] = ()
    broke_off: bool = False
    times: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one attempt came to."""

    status: int
    payload: payload_pb2.Payload
    headers: HeaderValues
    retry: bool
    timed_out: bool
    parts: Sequence[bytes]
    """What a caller is passed of it one by one; empty where nobody said how it comes."""
    broke_off: bool

    @property
    def succeeded(self) -> bool:
        """Whether it is a success."""
        return 200 <= self.status < 300 and not self.broke_off


class FakeFunction:
    """A function of a fake server; answers 200 without a body until it is told otherwise.

    What it is told is done in that order, attempt by attempt. ``times`` says for how many attempts; without it for all
    that follow, until it is told something else.
    """

    def __init__(self, name: str, release: Callable[[FakeFunction], None]) -> None:
        self._name = name
        self._release = release
        self._steps: list[Step] = []
        self._lock = threading.Lock()
        self._held = False
        self.lines: list[tuple[str, LogStream.ValueType]] = []
        """What each of its invocations writes when it starts."""
        self.paused = False
        """Whether its invocations wait because a client paused it."""

    def __repr__(self) -> str:
        return f"<FakeFunction {self._name}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def held(self) -> bool:
        """Whether its invocations wait for ``release``."""
        return self._held

    def returns(
        self,
        value: object = None,
        *,
        headers: HeaderValues | None = None,
        content_type: str | None = None,
        times: int | None = None,
    ) -> FakeFunction:
        """Answer with a value: str and bytes as they are, all else as JSON, also dataclasses and pydantic models.

        :param headers: Further headers of the answer; a list of values is a header for each.
        :raises TypeError: The value is none that JSON can carry, or the headers are none.
        """
        _encode(value, content_type)
        header_messages("headers", headers)
        return self._then(Step(answer=lambda _: value, headers=headers or {}, content_type=content_type, times=times))

    def answers(self, answer: Callable[[FakeCall], object], *, times: int | None = None) -> FakeFunction:
        """Answer with what a callable returns for the call. Where it raises, the attempt fails with status 500.

        It runs in another thread than the test.
        """
        if not callable(answer):
            raise TypeError(f"answer must be callable, not {type(answer).__name__}")
        return self._then(Step(answer=answer, times=times))

    def fails(
        self, status: int = 500, value: object = None, *, retry: bool = True, times: int | None = None
    ) -> FakeFunction:
        """Fail with a status that is not 2xx. As with a real server, some statuses are retried: 503, but not 400.

        :param status: The HTTP status code.
        :param value: The answer, as for ``returns``.
        :param retry: False for a failure that the function says is final.
        :param times: For how many attempts.
        :raises InvalidRequestError: The status is none of a failure.
        """
        if 200 <= check.integer("status", status) < 300 or not 100 <= status < 600:
            raise check.invalid("status", f"must be that of a failure, is {status}")
        _encode(value, None)
        return self._then(Step(answer=lambda _: value, status=status, retry=retry, times=times))

    def streams(
        self,
        *parts: str | bytes,
        content_type: str = "text/event-stream",
        headers: HeaderValues | None = None,
        breaks_off: bool = False,
        times: int | None = None,
    ) -> FakeFunction:
        """Answer bit by bit: a caller of ``invoke_stream`` gets these chunks, others the whole.

        :param breaks_off: Whether it fails after them, for good.
        :param times: For how many attempts.
        :raises TypeError: A part is neither str nor bytes, or the headers are none.
        """
        chunks = [_encode(part, content_type).data for part in parts if isinstance(part, str | bytes)]
        if len(chunks) < len(parts):
            raise TypeError("parts must be str or bytes")
        header_messages("headers", headers)
        return self._then(
            Step(
                answer=lambda _: b"".join(chunks),
                headers=headers or {},
                content_type=content_type,
                retry=not breaks_off,
                parts=chunks,
                broke_off=breaks_off,
                times=times,
            )
        )

    def times_out(self, *, times: int | None = None) -> FakeFunction:
        """Run past the attempt time-out, without taking that long."""
        return self._then(Step(answer=lambda _: None, status=0, timed_out=True, times=times))

    def logs(self, *lines: str, stderr: bool = False) -> FakeFunction:
        """Let each invocation write lines when it starts, after those that it was told before."""
        self.lines += [(check.text("lines", line), stream_of(stderr=stderr)) for line in lines]
        return self

    def hold(self) -> FakeFunction:
        """Keep invocations RUNNING until ``release``."""
        self._held = True
        return self

    def release(self) -> FakeFunction:
        """Let all its invocations end, those that are running and those that come."""
        self._held = False
        self._release(self)
        return self

    def run(self, call: FakeCall, attempt: int) -> Outcome:
        """Make one attempt."""
        step = self._next()
        status, retry = step.status, step.retry
        try:
            payload = _encode(step.answer(replace(call, attempt=attempt)), step.content_type)
        except Exception as error:  # noqa: BLE001 - a function that fails is no fault of the server
            status, payload = 500, _encode(f"{type(error).__name__}: {error}", None)
        return Outcome(
            status=status,
            payload=payload,
            headers=step.headers,
            retry=retry,
            timed_out=step.timed_out,
            parts=step.parts,
            broke_off=step.broke_off,
        )

    def _then(self, step: Step) -> FakeFunction:
        if step.times is not None and check.integer("times", step.times) < 1:
            raise check.invalid("times", f"must be at least 1, is {step.times}")
        with self._lock:
            if self._steps and self._steps[-1].times is None:
                self._steps.pop()
            self._steps.append(step)
        return self

    def _next(self) -> Step:
        with self._lock:
            if not self._steps:
                return Step(answer=lambda _: None)
            step = self._steps[0]
            if step.times == 1:
                self._steps.pop(0)
            elif step.times is not None:
                self._steps[0] = replace(step, times=step.times - 1)
            return step


def stream_of(*, stderr: bool) -> LogStream.ValueType:
    """Return where a line goes."""
    return LogStream.LOG_STREAM_STDERR if stderr else LogStream.LOG_STREAM_STDOUT


def _encode(value: object, content_type: str | None) -> payload_pb2.Payload:
    """Return an answer as a message."""
    if dataclasses.is_dataclass(value) or hasattr(value, "model_dump"):
        value = converter(type(value)).dump(value, "value")
    return encode_payload(value, content_type) or payload_pb2.Payload()
