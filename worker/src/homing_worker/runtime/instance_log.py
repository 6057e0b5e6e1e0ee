"""What an instance writes becomes lines of the invocations that it served at the time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, LogStream
from homing_core.clock import now_us
from homing_core.limits import KIB
from homing_core.log_lines import LineSplitter
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.attribution import DELAY_US, Attribution

_LAST_WORDS_SECONDS: Final = 0.25
"""After a call has ended a line that it has begun is waited for so long, or up to twice as long."""
_FLOOD_BYTES: Final = 32 * KIB
"""What comes in so large a part is part of a flood."""


class WrittenLines:
    """One of the two streams of a container: what it writes there becomes lines of invocations.

    A line that has begun belongs to those for whom it was begun, also where others are served before it is complete.
    What follows then, up to the line feed, is marked as shared: the engine passes long lines in parts of its own.
    """

    def __init__(self, stream: LogStream.ValueType) -> None:
        self._stream = stream
        self._splitter = LineSplitter()
        self._begun_for: Sequence[InvocationLog | None] = ()
        self._begun_us = 0
        self._goes_on = False
        """Whether no line feed has come yet of a line that was taken for a whole one."""

    @property
    def begun_for(self) -> Sequence[InvocationLog | None]:
        """To whom the line belongs that has begun; nobody where none has."""
        return self._begun_for if self._splitter.begun else ()

    def feed(self, text: bytes, logs: Sequence[InvocationLog | None], time_us: int) -> None:
        """Take what was written at some time.

        :param logs: Those that were served then.
        """
        if self._splitter.begun and set(logs) != set(self._begun_for):
            self.end_line()
        if not self._splitter.begun:
            self._begun_for, self._begun_us = logs, time_us
        for line in self._splitter.feed(text):
            self._write(line, time_us)

    def end_line(self) -> None:
        """Take the line that has begun for a whole one."""
        begun = self._splitter.begun
        for line in self._splitter.rest():
            self._write(line, self._begun_us)
        self._goes_on = self._goes_on or begun

    def _write(self, line: str, time_us: int) -> None:
        goes_on, self._goes_on = self._goes_on, False
        if goes_on and not line:
            return
        logs = [log for log in self._begun_for if log is not None]
        if line.startswith("["):
            # A function that serves several calls at a time may say which one it writes for.
            named = [log for log in logs if line.startswith(f"[{log.call_id}] ")]
            if len(named) == 1:
                named[0].write(line[len(named[0].call_id) + 3 :], self._stream, time_us, shared=goes_on)
                return
        for log in logs:
            log.write(line, self._stream, time_us, shared=goes_on or len(self._begun_for) > 1)


class InstanceLog:
    """What one instance writes on its two streams."""

    def __init__(self, *, delay_us: int = DELAY_US) -> None:
        """Prepare to take what it writes.

        :param delay_us: See :class:`Attribution`.
        """
        self._attribution = Attribution(delay_us=delay_us)
        self._streams = {stream: WrittenLines(stream) for stream in (LOG_STREAM_STDOUT, LOG_STREAM_STDERR)}
        self._look: asyncio.TimerHandle | None = None
        """When lines that have begun are looked at next."""

    def serving(self, log: InvocationLog | None) -> AbstractContextManager[None]:
        """Note that the instance serves an invocation, perhaps one without a log, while the context is open."""
        return self._attribution.serving(log)

    def feed(self, stream: LogStream.ValueType, text: bytes, time_us: int) -> None:
        """Take what was written to a stream at some time."""
        written, logs = self._streams[stream], self._attribution.at(time_us)
        if len(text) >= _FLOOD_BYTES and all(log is None or log.full for log in logs):
            # Nobody gets it, and taking it apart is what costs.
            written.end_line()
            return
        written.feed(text, logs, time_us)
        self._look_soon()

    def close(self) -> None:
        """Take what has begun for whole; nothing more is written."""
        if self._look is not None:
            self._look.cancel()
        for stream in self._streams.values():
            stream.end_line()

    def _look_at_begun_lines(self) -> None:
        """Take lines for whole that were begun for an invocation which is over, and look again while others wait."""
        self._look = None
        since_us = now_us() - round(_LAST_WORDS_SECONDS * 1e6)
        for stream in self._streams.values():
            if not all(self._attribution.served(log, since_us) for log in stream.begun_for):
                stream.end_line()
        self._look_soon()

    def _look_soon(self) -> None:
        # Calls are many, lines that stay without an end are few: nothing is done for a call.
        if self._look is None and any(stream.begun_for for stream in self._streams.values()):
            self._look = asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._look_at_begun_lines)
