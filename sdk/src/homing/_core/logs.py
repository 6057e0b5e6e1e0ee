"""The log lines of an invocation, or of a function, and how far a reader of them has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from homing._core import convert
from homing._core.names import LogStream
from homing.v1 import log_service_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class LogLine:
    """A line that a function wrote."""

    time: datetime | None
    """When it wrote it."""
    stream: LogStream
    """Where it wrote it."""
    text: str
    """The line without its end."""
    shared: bool
    """Whether the instance served other invocations at the time, so that the line may belong to another one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionLogLine(LogLine):
    """A line that a function wrote, whatever invocation it served."""

    invocation_id: str
    """The invocation."""


class LogProgress:
    """What a reader asks for, and how many lines it has seen.

    A server sends the lines from the first one on, always in the same order; so what it sends to one that asks again
    begins with those that were seen before.
    """

    def __init__(self, invocation_id: str, *, follow: bool) -> None:
        self.request = log_service_pb2.TailLogsRequest(id=invocation_id, follow=follow)
        self._seen = 0
        self._received = 0

    def resume(self) -> None:
        """Expect the lines from the first one on again."""
        self._received = 0

    def accept(self, message: log_service_pb2.TailLogsResponse) -> LogLine | None:
        """Take a message; return its line, or None for one that was seen before."""
        self._received += 1
        if self._received <= self._seen:
            return None
        self._seen = self._received
        return LogLine(
            time=convert.time(message, "time"),
            stream=convert.log_stream(message.stream),
            text=message.text,
            shared=message.shared,
        )


class FunctionLogProgress:
    """What a reader of the log of a function asks for, and from which line on."""

    def __init__(self, function: str, *, follow: bool, since: datetime | None, tail: int | None) -> None:
        self.request = log_service_pb2.TailFunctionLogsRequest(function=function, follow=follow, tail=tail or 0)
        if since is not None:
            self.request.since.FromDatetime(since)

    def resume(self) -> None:
        """Go on after the last line: the request says so already."""

    def accept(self, message: log_service_pb2.TailFunctionLogsResponse) -> FunctionLogLine:
        """Take a message; return its line."""
        self.request.resume_token = message.resume_token
        return FunctionLogLine(
            time=convert.time(message, "time"),
            stream=convert.log_stream(message.stream),
            text=message.text,
            shared=message.shared,
            invocation_id=message.invocation_id,
        )
