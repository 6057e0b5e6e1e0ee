"""The log lines of an invocation, and how far a reader of them has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from homing._core import convert
from homing._core.names import LogStream
from homing.v1 import invocation_service_pb2


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


class LogProgress:
    """What a reader asks for, and the last line it has seen.

    A server tells the lines from the beginning, always. One that was reached again has told those up to the last one
    before; lines are known by their times, since a server that was lost may have lost lines too.
    """

    def __init__(self, invocation_id: str, *, follow: bool) -> None:
        self.request = invocation_service_pb2.TailLogsRequest(id=invocation_id, follow=follow)
        self._last = -1
        self._seen_at_last = 0
        self._skip_at_last = 0
        self._resuming = False

    def resume(self) -> None:
        """Expect the lines from the beginning again."""
        self._resuming = True
        self._skip_at_last = self._seen_at_last

    def accept(self, message: invocation_service_pb2.TailLogsResponse) -> LogLine | None:
        """Take a message; return its line, or None for one that was seen before."""
        time = message.time.ToNanoseconds()
        if self._resuming:
            if time < self._last:
                return None
            if time == self._last and self._skip_at_last:
                self._skip_at_last -= 1
                return None
            self._resuming = False
        self._seen_at_last = self._seen_at_last + 1 if time == self._last else 1
        self._last = time
        return LogLine(
            time=convert.time(message, "time"),
            stream=convert.log_stream(message.stream),
            text=message.text,
            shared=message.shared,
        )
