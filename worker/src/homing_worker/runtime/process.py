"""Runs a command on this host once a call, the way a classic watchdog does: body on stdin, result on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

from homing.v1.function_pb2 import Function
from homing.v1.log_service_pb2 import LOG_STREAM_STDERR
from homing_core import limits
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.log_lines import LineSplitter
from homing_core.reasons import FailureReason
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.base import Answer, Body, CallFailedError, Instance, Request, Runtime
from homing_worker.runtime.headers import Headers, joined, kept_headers
from homing_worker.runtime.secret_files import SecretFiles
from homing_worker.runtime.spool import Spool, SpoolError, Spools

_INHERITED: Final = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ")
"""What a command sees of the worker's environment: not the rest, which may hold secrets of the worker."""

SECRETS_VARIABLE: Final = "HOMING_SECRETS_DIR"
"""Where a command finds the folder with its secrets."""

_LAST_BYTES: Final = 4000
_LAST_LINES: Final = 10
"""So much of what a command wrote to stderr last is in the message of its failure."""


class ProcessRuntime(Runtime):
    """Runs functions that are commands. An instance is only a place: each call has a process of its own."""

    source = "command"

    def __init__(self, files: SecretFiles) -> None:
        """Prepare to run commands.

        :param files: Lays out secrets for calls.
        """
        self._files = files

    async def open(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def close(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def start(self, function: Function, secrets: Mapping[str, bytes]) -> Instance:
        """Return a place for calls of the function."""
        return ProcessInstance(function, secrets, self._files)


class ProcessInstance(Instance):
    """A place for calls of a function that is a command."""

    isolates_calls = True

    def __init__(self, function: Function, secrets: Mapping[str, bytes], files: SecretFiles) -> None:
        self.name = f"process-{new_id()[-8:]}"
        self.revision = function.revision
        self._args = tuple(function.command.args)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._environment = {**inherited, **function.env}
        self._secrets = secrets
        self._files = files

    @property
    def alive(self) -> bool:
        """A place is always there."""
        return True

    def on_exit(self, hook: Callable[[], None]) -> None:
        """Do nothing: a place does not go by itself."""

    async def verify(self) -> bool:
        """A place is always there."""
        return True

    async def kill(self) -> bool:
        """Do nothing: processes do not outlive their calls."""
        return True

    async def stop(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def call(self, request: Request, log: InvocationLog | None) -> Answer:
        """Run the command; kill it, and what it started, where the call is cancelled or it writes too much.

        What it writes to stderr is its log. Its secrets are in a folder of their own for as long as it runs.
        """
        if not self._secrets:
            return await self._run(request, log, {})
        try:
            folder = self._files.lay_out(self._secrets, for_all=False)
        except OSError as error:
            message = f"its secrets cannot be laid out: {error.strerror}"
            raise CallFailedError(FailureReason.SECRETS_UNAVAILABLE, message) from error
        try:
            return await self._run(request, log, {SECRETS_VARIABLE: str(folder)})
        finally:
            self._files.remove(folder)

    async def _run(self, request: Request, log: InvocationLog | None, variables: Mapping[str, str]) -> Answer:
        started = time.monotonic()
        try:
            transport, run = await asyncio.get_running_loop().subprocess_exec(
                partial(_Run, request.spools, log),
                *self._args,
                stdin=request.body.rewind() if isinstance(request.body, Spool) else subprocess.PIPE,
                env={**self._environment, **http_variables(request), **variables},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CallFailedError(FailureReason.START_FAILED, f"the command cannot be run: {error}") from error
        over = False
        try:
            # A command may end without reading what it is given.
            with contextlib.suppress(OSError, RuntimeError):
                # uvloop's transport is no WriteTransport by its class, only by its methods.
                if not isinstance(request.body, Spool):
                    stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
                    stdin.write(request.body)
                    stdin.close()
            await run.finished
            over = True
        finally:
            if not over:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(transport.get_pid(), signal.SIGKILL)
                await run.exited
            transport.close()
        status = transport.get_returncode() or 0
        if status == 0:
            content_type = joined(request.headers).get("content-type", "")
            duration = f"{time.monotonic() - started:.6f}"
            return Answer(
                status_code=200,
                headers=kept_headers([("content-type", content_type), ("x-duration-seconds", duration)]),
                content_type=content_type,
                body=run.body,
            )
        ended = f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
        return Answer(
            status_code=500,
            headers=[("content-type", "text/plain; charset=utf-8")],
            content_type="text/plain; charset=utf-8",
            body=run.body,
            failure=(FailureReason.EXIT_STATUS, "\n".join([ended, *run.last_lines])),
        )


class _Run(asyncio.SubprocessProtocol):
    """Takes what a command writes: all of stdout, up to the limit; stderr as log lines, and the end of it.

    Output that is too large for memory goes on into a file. While more than a part of it is unwritten the command waits
    (backpressure).
    """

    def __init__(self, spools: Spools, log: InvocationLog | None) -> None:
        loop = asyncio.get_running_loop()
        self._log = log
        self._lines = LineSplitter()
        self.finished: asyncio.Future[None] = loop.create_future()
        """Done once the command has ended and closed its output, or has failed."""
        self.exited: asyncio.Future[None] = loop.create_future()
        self._spools = spools
        self._stdout: asyncio.ReadTransport | None = None
        self._spool: Spool | None = None
        self._spooling: asyncio.Task[None] | None = None
        self._output: list[bytes] = []
        self._unspooled = 0
        self._output_size = 0
        self._errors: deque[bytes] = deque()
        self._errors_size = 0
        self._open = {1, 2}

    @property
    def body(self) -> Body:
        """What the command wrote to stdout."""
        return b"".join(self._output) if self._spool is None else self._spool

    @property
    def last_lines(self) -> list[str]:
        """The last lines that the command wrote to stderr."""
        return b"".join(self._errors)[-_LAST_BYTES:].decode("utf-8", "replace").splitlines()[-_LAST_LINES:]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the end of stdout's pipe, to let the command wait."""
        # uvloop's transports are none of asyncio's by their classes, only by their methods.
        pipe = cast(asyncio.SubprocessTransport, transport).get_pipe_transport(1)
        self._stdout = cast(asyncio.ReadTransport, pipe)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what may be kept."""
        if self.finished.done():
            return
        if fd == 1:
            self._output_size += len(data)
            self._output.append(data)
            self._unspooled += len(data)
            if self._output_size > limits.MAX_PAYLOAD:
                self.finished.set_exception(
                    CallFailedError(
                        FailureReason.RESULT_TOO_LARGE,
                        f"the output is larger than the limit of {limits.MAX_PAYLOAD} bytes",
                        permanent=True,
                    )
                )
            elif self._output_size > limits.MAX_INLINE_RESULT:
                if self._unspooled > limits.MAX_PART and self._stdout is not None:
                    self._stdout.pause_reading()
                if self._spooling is None:
                    self._spooling = asyncio.ensure_future(self._move())
        else:
            if self._log is not None and not self._log.full:
                self._write(self._log, self._lines.feed(data))
            self._errors_size += len(data)
            self._errors.append(data)
            while self._errors_size - len(self._errors[0]) > _LAST_BYTES:
                self._errors_size -= len(self._errors.popleft())

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 the base's
        """Note that the command closed a pipe."""
        if fd == 2 and self._log is not None:
            self._write(self._log, self._lines.rest())
        self._open.discard(fd)
        self._settle()

    def process_exited(self) -> None:
        """Note that the command has ended."""
        if not self.exited.done():
            self.exited.set_result(None)
        self._settle()

    @staticmethod
    def _write(log: InvocationLog, lines: Iterator[str]) -> None:
        for line in lines:
            log.write(line, LOG_STREAM_STDERR, now_us())

    def _settle(self) -> None:
        if not self._open and self.exited.done() and not self.finished.done() and self._spooling is None:
            self.finished.set_result(None)

    async def _move(self) -> None:
        """Move what was read into the file."""
        try:
            if self._spool is None:
                self._spool = await self._spools.open()
            while self._output and not self.finished.done():
                data = b"".join(self._output)
                self._output.clear()
                self._unspooled = 0
                if 1 in self._open and self._stdout is not None:
                    self._stdout.resume_reading()
                await self._spool.write(data)
        except SpoolError as error:
            if not self.finished.done():
                self.finished.set_exception(error)
        finally:
            self._spooling = None
            self._settle()


def http_variables(request: Request) -> dict[str, str]:
    """Return the environment variables in which a command finds its request, named as the classic watchdog does.

    A header that comes more than once is one variable, its values joined by ``, ``.
    """
    parts = urlsplit(request.target)
    variables = {f"Http_{name.replace('-', '_')}": value for name, value in _title(request.headers).items()}
    return variables | {
        "Http_Method": request.method,
        "Http_Path": parts.path,
        "Http_Query": parts.query,
        "Http_ContentLength": str(len(request.body)),
        "Http_Content_Length": str(len(request.body)),
    }


def _title(headers: Headers) -> dict[str, str]:
    return {"-".join(word.capitalize() for word in name.split("-")): value for name, value in joined(headers).items()}
