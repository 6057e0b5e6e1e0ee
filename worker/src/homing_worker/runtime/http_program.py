"""A program of this host that serves HTTP: started once, it takes call after call until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from typing import IO, Final

import aiohttp

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, LogStream
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.limits import MIB
from homing_core.reasons import FailureReason
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.base import Answer, CallFailedError, Instance, Request, StartFailedError
from homing_worker.runtime.health_check import HealthCheck
from homing_worker.runtime.http_call import exchange, open_session
from homing_worker.runtime.instance_log import InstanceLog
from homing_worker.runtime.listening_port import listens
from homing_worker.runtime.out_of_memory import OutOfMemoryKills
from homing_worker.runtime.program import Program, how_it_ended, read_some

PORT_VARIABLE: Final = "PORT"
HOST_VARIABLE: Final = "HOST"
HOST: Final = "127.0.0.1"
"""By these variables a program is told where to listen: a port of this address, which nobody else comes to."""

Show = Callable[[str, bytes], None]
"""Is given the name of a function and what a program of it has written."""

_PROBE_INTERVAL: Final = 0.02
"""Seconds between two probes of a program that is not ready."""
_PROBE_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=1.0, sock_read=2.0)
_CONNECT_TIMEOUT: Final = 1.0
_EXIT_TIMEOUT: Final = 0.5
"""Seconds that a program whose connection broke is given to be seen to have ended."""
_LAST_BYTES: Final = 4000
_LAST_LINES: Final = 10
"""So much of what a program wrote to stderr last is in the message of its failure."""
_MAX_PIPE_BYTES: Final = MIB
"""A pipe holds so much at the most, unless the system was told otherwise."""


class PortTakenError(Exception):
    """Another program listens on the port that was meant for this one."""


class HttpProgram(Instance):
    """A program that was started; it takes calls once :meth:`become_ready` has returned."""

    def __init__(
        self,
        program: Program,
        *,
        revision: int,
        port: int,
        check: HealthCheck | None,
        stop_grace: float,
        kills: OutOfMemoryKills,
        show: Callable[[bytes], None] | None,
        free: Callable[[], None],
    ) -> None:
        """Take over a program that was started.

        :param check: Where it says whether it is ready; None where its port tells.
        :param show: Is given what it writes.
        :param free: Frees what it used, once it is stopped.
        """
        self.name = f"program-{new_id()[-8:]}"
        self.revision = revision
        self.port = port
        self.why_not_ready = f"it does not listen on the port that the variable {PORT_VARIABLE} names"
        """What the last probe found."""
        self._program = program
        self._origin = f"http://{HOST}:{port}"
        self._check = check
        self._stop_grace = stop_grace
        self._kills = kills
        self._show = show
        self._kills_before = kills.count()
        self._free: Callable[[], None] | None = free
        # Its own: another program may have its port after it, and keep connections otherwise.
        self._session = open_session()
        self._stopping = False
        # What is in the pipes is read before a call is over, so nothing of it comes late.
        self._lines = InstanceLog(delay_us=0)
        self._errors: deque[bytes] = deque()
        self._errors_size = 0
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[LogStream.ValueType, IO[bytes]] = {}
        for stream, pipe in ((LOG_STREAM_STDOUT, program.stdout), (LOG_STREAM_STDERR, program.stderr)):
            if pipe is not None:
                self._pipes[stream] = pipe
                self._loop.add_reader(pipe.fileno(), self._read, stream)
        program.exited.add_done_callback(self._on_exit)

    @property
    def alive(self) -> bool:
        """Whether the program has not ended."""
        return not self._program.exited.done()

    def last_words(self) -> str:
        """Return the last lines that the program wrote to stderr, each after a line feed."""
        self._read_all()
        text = b"".join(self._errors)[-_LAST_BYTES:].decode("utf-8", "replace")
        return "".join(f"\n{line}" for line in text.splitlines()[-_LAST_LINES:])

    def on_exit(self, hook: Callable[[], None]) -> None:
        """Call the hook when the program has ended by itself."""

        def ended(_: asyncio.Future[int]) -> None:
            if not self._stopping:
                hook()

        self._program.exited.add_done_callback(ended)

    async def become_ready(self, probes: aiohttp.ClientSession) -> None:
        """Probe the program until it is ready: its port takes connections, and its check passes where it has one.

        :param probes: By which it is asked; keeps no connections.
        :raises StartFailedError: The program ended before.
        """
        exited = self._program.exited
        while True:
            if exited.done():
                if await self._listens():
                    raise PortTakenError
                raise StartFailedError(
                    self._reason(FailureReason.START_FAILED),
                    f"{self._how_it_ended()} before it was ready{self.last_words()}",
                )
            if await self._listens():
                if not listens(self._program.pid, self.port):
                    raise PortTakenError
                if self._check is None or await self._passes(self._check, probes):
                    return
            await asyncio.wait({exited}, timeout=_PROBE_INTERVAL)

    async def call(self, request: Request, log: InvocationLog | None) -> Answer:
        """Send the request to the program's port."""
        try:
            with self._lines.serving(log):
                try:
                    return await exchange(self._session, self._origin, request)
                finally:
                    self._read_all()
        except CallFailedError as error:
            if error.suspect:
                await asyncio.wait({self._program.exited}, timeout=_EXIT_TIMEOUT)
                if not self.alive:
                    raise CallFailedError(
                        self._reason(error.reason),
                        f"{error.message}: {self._how_it_ended()}{self.last_words()}",
                        suspect=True,
                    ) from error
            raise

    async def verify(self) -> bool:
        """Return whether the program still listens."""
        return self.alive and await self._listens()

    async def kill(self) -> bool:
        """End the program, and what it started, with SIGKILL."""
        self._stopping = True
        self._program.signal(signal.SIGKILL)
        await asyncio.wait({self._program.exited})
        return True

    async def stop(self) -> None:
        """Stop the program, and what it started: SIGTERM, then SIGKILL after the grace."""
        self._stopping = True
        try:
            if self._stop_grace:
                self._program.signal(signal.SIGTERM)
                await asyncio.wait({self._program.exited}, timeout=self._stop_grace)
            self._program.signal(signal.SIGKILL)
            await asyncio.wait({self._program.exited})
        finally:
            self._program.signal(signal.SIGKILL)
            if self._free is not None:
                self._free()
                self._free = None
            await self._session.close()

    def _reason(self, otherwise: FailureReason) -> FailureReason:
        killed = self._program.exited.result() == -signal.SIGKILL and self._kills.count() > self._kills_before
        return FailureReason.OUT_OF_MEMORY if killed else otherwise

    def _how_it_ended(self) -> str:
        if self._reason(FailureReason.START_FAILED) == FailureReason.OUT_OF_MEMORY:
            return "the program was killed by the system, which had no memory left for it"
        return f"the program ended, {how_it_ended(self._program.exited.result())},"

    async def _listens(self) -> bool:
        """Return whether the port takes connections."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                _, writer = await asyncio.open_connection(HOST, self.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _passes(self, check: HealthCheck, probes: aiohttp.ClientSession) -> bool:
        try:
            async with probes.get(self._origin + check.path, allow_redirects=False, timeout=_PROBE_TIMEOUT) as response:
                self.why_not_ready = f"its {check.path} answers with status {response.status}"
                return check.passes(response.status)
        except (aiohttp.ClientError, TimeoutError):
            self.why_not_ready = f"its {check.path} does not answer"
            return False

    def _read(self, stream: LogStream.ValueType) -> int:
        """Take a part of what the program wrote to a stream; return its size, 0 where there is none now."""
        pipe = self._pipes.get(stream)
        if pipe is None or (data := read_some(pipe)) is None:
            return 0
        if not data:
            self._close(stream)
            return 0
        self._lines.feed(stream, data, now_us())
        if self._show is not None:
            self._show(data)
        if stream == LOG_STREAM_STDERR:
            self._errors_size += len(data)
            self._errors.append(data)
            while self._errors_size - len(self._errors[0]) > _LAST_BYTES:
                self._errors_size -= len(self._errors.popleft())
        return len(data)

    def _read_all(self) -> None:
        """Take what was written up to now, as much as a pipe holds."""
        for stream in list(self._pipes):
            left = _MAX_PIPE_BYTES
            while left > 0 and (size := self._read(stream)):
                left -= size

    def _on_exit(self, _: asyncio.Future[int]) -> None:
        self._read_all()
        for stream in list(self._pipes):
            self._close(stream)
        self._lines.close()

    def _close(self, stream: LogStream.ValueType) -> None:
        pipe = self._pipes.pop(stream)
        self._loop.remove_reader(pipe.fileno())
        pipe.close()
