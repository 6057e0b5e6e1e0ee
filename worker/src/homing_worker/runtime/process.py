"""Runs a command on this host once a call, the way a classic watchdog does: body on stdin, result on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from homing.v1.function_pb2 import Function
from homing_core import limits
from homing_core.ids import new_id
from homing_core.reasons import FailureReason
from homing_worker.headers import clean_headers
from homing_worker.runtime.seam import Answer, CallFailedError, Instance, Request, Runtime

_INHERITED: Final = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ")
"""What a command sees of the worker's environment: not the rest, which may hold secrets of the worker."""

_CHUNK: Final = 64 * 1024
_KEPT_STDERR: Final = 4000
_TOLD_LINES: Final = 10


class ProcessRuntime(Runtime):
    """Runs functions that are commands. An instance is only a place: each call has a process of its own."""

    source = "command"

    async def open(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def close(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def start(self, function: Function) -> Instance:
        """Return a place for calls of the function."""
        return ProcessInstance(function)


class ProcessInstance(Instance):
    """A place for calls of a function that is a command."""

    def __init__(self, function: Function) -> None:
        self.name = f"process-{new_id()[-8:]}"
        self.revision = function.revision
        self._args = tuple(function.command.args)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._environment = {**inherited, **function.env}

    @property
    def alive(self) -> bool:
        """A place is always there."""
        return True

    def on_exit(self, hook: Callable[[], None]) -> None:
        """Do nothing: a place does not go by itself."""

    async def verify(self) -> bool:
        """A place is always there."""
        return True

    async def stop(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def call(self, request: Request) -> Answer:
        """Run the command; kill it, and what it started, where the call is cancelled or it writes too much."""
        started = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**self._environment, **http_variables(request)},
                start_new_session=True,
                limit=_CHUNK,
            )
        except (OSError, ValueError) as error:
            raise CallFailedError(FailureReason.START_FAILED, f"the command cannot be run: {error}") from error
        try:
            writing = asyncio.create_task(_write(process, request.body))
            telling = asyncio.create_task(_read_tail(process))
            try:
                body = await _read_capped(process)
                tail = await telling
                status = await process.wait()
            finally:
                writing.cancel()
                telling.cancel()
        except BaseException:
            await _kill(process)
            raise
        headers = {"x-duration-seconds": f"{time.monotonic() - started:.6f}"}
        if status == 0:
            content_type = request.headers.get("Content-Type", "")
            return Answer(
                status_code=200,
                headers=clean_headers([("content-type", content_type), *headers.items()]),
                content_type=content_type,
                body=body,
            )
        ended = f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
        return Answer(
            status_code=500,
            headers={"content-type": "text/plain; charset=utf-8"},
            content_type="text/plain; charset=utf-8",
            body=body,
            failure=(FailureReason.EXIT_STATUS, "\n".join([ended, *tail])),
        )


def http_variables(request: Request) -> dict[str, str]:
    """Return the environment variables in which a command finds its request, named as the classic watchdog does."""
    parts = urlsplit(request.target)
    variables = {f"Http_{name.replace('-', '_')}": value for name, value in _title(request.headers).items()}
    return variables | {
        "Http_Method": request.method,
        "Http_Path": parts.path,
        "Http_Query": parts.query,
        "Http_ContentLength": str(len(request.body)),
        "Http_Content_Length": str(len(request.body)),
    }


def _title(headers: Mapping[str, str]) -> dict[str, str]:
    return {"-".join(word.capitalize() for word in name.split("-")): value for name, value in headers.items()}


async def _write(process: asyncio.subprocess.Process, body: bytes) -> None:
    assert process.stdin is not None
    # A command need not read what it is given.
    with contextlib.suppress(OSError):
        process.stdin.write(body)
        await process.stdin.drain()
    process.stdin.close()


async def _read_capped(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    chunks, size = [], 0
    while chunk := await process.stdout.read(_CHUNK):
        size += len(chunk)
        if size > limits.MAX_INLINE_RESULT:
            raise CallFailedError(
                FailureReason.RESULT_TOO_LARGE,
                f"the output is larger than the limit of {limits.MAX_INLINE_RESULT} bytes",
                permanent=True,
            )
        chunks.append(chunk)
    return b"".join(chunks)


async def _read_tail(process: asyncio.subprocess.Process) -> list[str]:
    """Read all of stderr and return its last lines."""
    assert process.stderr is not None
    kept: deque[bytes] = deque()
    size = 0
    while chunk := await process.stderr.read(_CHUNK):
        kept.append(chunk)
        size += len(chunk)
        while size - len(kept[0]) > _KEPT_STDERR:
            size -= len(kept.popleft())
    return b"".join(kept)[-_KEPT_STDERR:].decode("utf-8", "replace").splitlines()[-_TOLD_LINES:]


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the command with all that it started, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
