"""One run of a command: its process, what it is given to read, and what it writes until it has ended.

It has ended when the program has: what it left behind may hold its output open and is not waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Final

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR
from homing_core import limits
from homing_core.clock import now_us
from homing_core.log_lines import LineSplitter
from homing_core.reasons import FailureReason
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.answer_stream import AnswerStream
from homing_worker.runtime.base import Body, CallFailedError, Request
from homing_worker.runtime.headers import kept_headers
from homing_worker.runtime.program import Program, read_some
from homing_worker.runtime.spool import Spool, SpoolError, Spools

_MAX_PIPE_BYTES: Final = limits.MIB
"""A pipe holds so much at the most, unless the system was told otherwise: that much a program may leave in it."""
_MOMENT: Final = 0.1
"""Output that is so many seconds old is passed on to a caller who takes it as it comes: until then how the command ends
may decide what is made of it."""
_SUCCESS: Final = 200
_LAST_BYTES: Final = 4000
_LAST_LINES: Final = 10
"""So much of what a command wrote to stderr last is in the message of its failure."""


class CommandRun:
    """Takes what a command writes: all of stdout, up to the limit; stderr as log lines, and the end of it.

    Output that is too large for memory goes on into a file; or to a caller who takes it as it comes, and then has no
    limit, and goes on once it is a moment old. While more than a part of it waits the command waits (back-pressure).
    """

    def __init__(
        self,
        args: Sequence[str],
        environment: Mapping[str, str],
        request: Request,
        log: InvocationLog | None,
        *,
        content_type: str,
        user: int | None = None,
    ) -> None:
        """Start the command.

        :param content_type: The media type of what it writes, for a caller who takes that as it comes.
        :param user: The UID and GID that it runs as, in the folder /; None for the worker's own, where the worker is.
        :raises OSError: It cannot be started.
        :raises ValueError: It cannot be: there is a NUL in it or in its environment.
        """
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[int] = self._loop.create_future()
        """The exit status, negative for a signal, once the command has ended and all that it wrote is taken; or why it
        failed before."""
        self._log = log
        self._lines = LineSplitter()
        self._spools: Spools = request.spools
        self._stream = request.stream
        self._content_type = content_type
        self._sink: Spool | AnswerStream | None = None
        """Where output goes that is not kept in memory."""
        self._moves = False
        """Whether it goes there whatever its size is."""
        self._moving: asyncio.Task[None] | None = None
        self._moment: asyncio.TimerHandle | None = None
        self._output: list[bytes] = []
        self._unmoved = 0
        self._output_size = 0
        self._errors: deque[bytes] = deque()
        self._errors_size = 0
        self._program = Program(
            args,
            environment,
            stdin=request.body.rewind() if isinstance(request.body, Spool) else subprocess.PIPE,
            user=user,
        )
        self._unread = memoryview(b"" if isinstance(request.body, Spool) else request.body)
        self._stdin, self._stdout, self._stderr = self._program.stdin, self._program.stdout, self._program.stderr
        self._ended = False
        """Whether the program has ended, and all is taken that it wrote."""
        self._program.exited.add_done_callback(self._on_exit)
        if self._stdin is not None:
            self._loop.add_writer(self._stdin.fileno(), self._feed)
            self._feed()
        if self._stdout is not None and self._stderr is not None:
            self._loop.add_reader(self._stdout.fileno(), self._read_stdout)
            self._loop.add_reader(self._stderr.fileno(), self._read_stderr)

    @property
    def body(self) -> Body:
        """What the command wrote to stdout; nothing where it was passed on as it came."""
        return self._sink if isinstance(self._sink, Spool) else b"".join(self._output)

    @property
    def last_lines(self) -> list[str]:
        """The last lines that the command wrote to stderr."""
        return b"".join(self._errors)[-_LAST_BYTES:].decode("utf-8", "replace").splitlines()[-_LAST_LINES:]

    async def close(self) -> None:
        """Kill the command and what it started, unless it has ended, and free what it used."""
        self._program.signal(signal.SIGKILL)
        await asyncio.wait({self._program.exited})
        self._close_pipes()
        if self._moment is not None:
            self._moment.cancel()
        if self._moving is not None and self._stream is not None and not isinstance(self._sink, Spool):
            # It may wait for somebody who takes nothing more.
            self._moving.cancel()

    def _on_exit(self, _: asyncio.Future[int]) -> None:
        """Take what the program left in its pipes, without waiting for whoever else holds them."""
        for read in (self._read_stdout, self._read_stderr):
            left = _MAX_PIPE_BYTES
            while left > 0 and (size := read()):
                left -= size
        self._close_pipes()
        if self._log is not None:
            self._write(self._log, self._lines.rest())
        self._ended = True
        self._settle()

    def _feed(self) -> None:
        """Write what the command is to read. It may end without reading it."""
        if self._stdin is None:
            return
        try:
            while self._unread:
                self._unread = self._unread[os.write(self._stdin.fileno(), self._unread) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self._close(self._stdin)
        self._stdin = None

    def _read_stdout(self) -> int:
        """Take a part of the output; return its size, 0 where there is none now."""
        if self._stdout is None or (data := read_some(self._stdout)) is None:
            return 0
        if not data:
            self._close(self._stdout)
            self._stdout = None
        elif not self.finished.done():
            self._take_output(data)
        return len(data)

    def _take_output(self, data: bytes) -> None:
        self._output_size += len(data)
        self._output.append(data)
        self._unmoved += len(data)
        if self._output_size > limits.MAX_PAYLOAD and not isinstance(self._sink, AnswerStream):
            self.finished.set_exception(
                CallFailedError(
                    FailureReason.RESULT_TOO_LARGE,
                    f"the output is larger than the limit of {limits.MAX_PAYLOAD} bytes",
                    permanent=True,
                )
            )
        elif self._output_size > limits.MAX_INLINE_RESULT or self._moves:
            if self._unmoved > limits.MAX_PART and self._stdout is not None:
                self._loop.remove_reader(self._stdout.fileno())
            if self._moving is None:
                self._moving = asyncio.ensure_future(self._move())
        elif self._stream is not None and self._moment is None:
            self._moment = self._loop.call_later(_MOMENT, self._pass_on)

    def _pass_on(self) -> None:
        """Pass on what there is, and what comes."""
        self._moves = True
        if self._moving is None and not (self._ended or self.finished.done()):
            self._moving = asyncio.ensure_future(self._move())

    def _read_stderr(self) -> int:
        """Take a part of what it writes besides; return its size, 0 where there is none now."""
        if self._stderr is None or (data := read_some(self._stderr)) is None:
            return 0
        if not data:
            self._close(self._stderr)
            self._stderr = None
            return 0
        if self._log is not None and not self._log.full:
            self._write(self._log, self._lines.feed(data))
        self._errors_size += len(data)
        self._errors.append(data)
        while self._errors_size - len(self._errors[0]) > _LAST_BYTES:
            self._errors_size -= len(self._errors.popleft())
        return len(data)

    @staticmethod
    def _write(log: InvocationLog, lines: Iterator[str]) -> None:
        for line in lines:
            log.write(line, LOG_STREAM_STDERR, now_us())

    def _close(self, pipe: IO[bytes]) -> None:
        self._loop.remove_reader(pipe.fileno())
        self._loop.remove_writer(pipe.fileno())
        pipe.close()

    def _close_pipes(self) -> None:
        for pipe in (self._stdin, self._stdout, self._stderr):
            if pipe is not None:
                self._close(pipe)
        self._stdin = self._stdout = self._stderr = None

    def _settle(self) -> None:
        if self._ended and not self.finished.done() and self._moving is None:
            self.finished.set_result(self._program.exited.result())

    async def _move(self) -> None:
        """Move what was read to where it goes."""
        try:
            sink = self._sink = self._sink or await self._open()
            while self._output and not self.finished.done():
                data = b"".join(self._output)
                self._output.clear()
                self._unmoved = 0
                if self._stdout is not None:
                    self._loop.add_reader(self._stdout.fileno(), self._read_stdout)
                await sink.write(data)
        except SpoolError as error:
            if not self.finished.done():
                self.finished.set_exception(error)
        finally:
            self._moving = None
            self._settle()

    async def _open(self) -> Spool | AnswerStream:
        headers = kept_headers([("content-type", self._content_type)])
        if self._stream is not None and await self._stream.open(_SUCCESS, headers, self._content_type):
            return self._stream
        return await self._spools.open()
