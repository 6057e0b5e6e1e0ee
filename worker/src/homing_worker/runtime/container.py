"""A container that runs a function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import structlog
from aiodocker import DockerError
from aiodocker.containers import DockerContainer

from homing_core.reasons import FailureReason
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.base import Answer, CallFailedError, Instance, Request, StartFailedError
from homing_worker.runtime.container_log import ContainerLog
from homing_worker.runtime.health_check import HealthCheck
from homing_worker.runtime.http_call import exchange, open_session

_log = structlog.get_logger(__name__)

ENGINE_ERRORS: Final = (DockerError, aiohttp.ClientError, OSError, json.JSONDecodeError)
"""What a request to the Docker Engine may raise."""

_PROBE_INTERVAL: Final = 0.03
"""Seconds between two probes of a container that is not ready: its cold start is over so much later at the most."""
_PROBE_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=1.0, sock_read=2.0)
_CONNECT_TIMEOUT: Final = 1.0
_FORWARD_TIMEOUT: Final = 0.2
"""A published port behind which nobody listens closes a connection sooner than after so many seconds."""
_WATCH_RETRY_INTERVAL: Final = 1.0
_EXIT_TIMEOUT: Final = 0.5
_REMOVE_TIMEOUT: Final = 30.0
_KILL_TIMEOUT: Final = 10.0
"""Seconds, all of these."""
_LAST_LINES: Final = 10
_LAST_CHARACTERS: Final = 3000
"""So much of what a container wrote last is in the message of its failure."""


class Container(Instance):
    """A started container; it takes calls once :meth:`become_ready` has returned."""

    def __init__(
        self,
        container: DockerContainer,
        *,
        name: str,
        revision: int,
        image_id: str,
        host: str,
        port: int,
        direct: bool,
        check: HealthCheck | None,
        probes: aiohttp.ClientSession,
        stop_grace: int,
        log: ContainerLog,
        free: Callable[[], None],
    ) -> None:
        """Take over a container that was started.

        :param direct: Whether host and port are the container's own, and not a port that the engine has published.
        :param check: Where it says whether it is ready; None where it is not known to.
        :param probes: By which it is asked that; it keeps no connections.
        :param free: Frees what it used, once it is stopped.
        """
        self.name = name
        self.revision = revision
        self.image_id = image_id
        self._container = container
        self.why_not_ready = "its port 8080 takes no connections"
        """What the last probe found."""
        self._host, self._port = host, port
        self._origin = f"http://{host}:{port}"
        self._direct = direct
        self._check = check
        self._probes = probes
        # Its own: another container may have its address after it, and keep connections otherwise.
        self._session = open_session()
        self._stop_grace = stop_grace
        self._log = log
        self._free = free
        self._exit_status: int | None = None
        self._out_of_memory = False
        self._last_words = ""
        self._stopping = False
        self._exited: asyncio.Task[None] = asyncio.create_task(self._watch())

    @property
    def alive(self) -> bool:
        """Whether the container has not ended."""
        return not self._exited.done()

    def on_exit(self, hook: Callable[[], None]) -> None:
        """Call the hook when the container has ended by itself."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and not self._stopping:
                hook()

        self._exited.add_done_callback(ended)

    async def become_ready(self) -> None:
        """Probe the container until it is ready.

        It is when its port takes connections, or when its health check says so, where it is known to have one: any
        other request would run the function.

        :raises StartFailedError: The container ended before.
        """
        while True:
            probe = asyncio.create_task(self._answers())
            try:
                await asyncio.wait({probe, self._exited}, return_when=asyncio.FIRST_COMPLETED)
                if self._exited.done():
                    raise StartFailedError(
                        self._reason(FailureReason.START_FAILED),
                        f"{self._how_it_ended()} before it was ready{self._last_words}",
                    )
                if probe.result():
                    self._log.open()
                    return
            finally:
                probe.cancel()
            await asyncio.wait({self._exited}, timeout=_PROBE_INTERVAL)

    async def call(self, request: Request, log: InvocationLog | None) -> Answer:
        """Send the request to the container's port 8080."""
        try:
            with self._log.serving(log):
                return await exchange(self._session, self._origin, request)
        except CallFailedError as error:
            if error.suspect:
                # The engine soon reports a container that just died.
                await asyncio.wait({self._exited}, timeout=_EXIT_TIMEOUT)
                if self._exited.done():
                    raise CallFailedError(
                        self._reason(error.reason),
                        f"{error.message}: {self._how_it_ended()}{self._last_words}",
                        suspect=True,
                    ) from error
            raise

    async def verify(self) -> bool:
        """Ask the engine whether the container runs; where it does not say, what is known counts."""
        try:
            async with asyncio.timeout(_REMOVE_TIMEOUT):
                state = (await self._container.show())["State"]
        except DockerError as error:
            return self.alive and error.status != 404
        except (*ENGINE_ERRORS, TimeoutError):
            return self.alive
        return bool(state["Running"])

    async def kill(self) -> bool:
        """Kill the container with SIGKILL, and remove it."""
        self._stopping = True
        try:
            async with asyncio.timeout(_KILL_TIMEOUT):
                await self._container.delete(force=True, v=True)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            if not (isinstance(error, DockerError) and error.status == 404):
                _log.warning("container_not_killed", instance=self.name, error=str(error))
                return False
        return True

    async def stop(self) -> None:
        """Stop and remove the container: SIGTERM, then SIGKILL after the grace."""
        self._stopping = True
        try:
            async with asyncio.timeout(self._stop_grace + _REMOVE_TIMEOUT):
                if self.alive and self._stop_grace:
                    await self._container.stop(t=self._stop_grace)
                await self._container.delete(force=True, v=True)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            if not (isinstance(error, DockerError) and error.status in {404, 409}):
                _log.warning("container_not_removed", instance=self.name, error=str(error))
        finally:
            self._free()
            self._exited.cancel()
            await self._log.close()
            await self._session.close()

    async def last_lines(self) -> str:
        """Return the last lines that the container wrote, each after a line feed."""
        try:
            async with asyncio.timeout(_REMOVE_TIMEOUT):
                lines: list[str] = await self._container.log(stdout=True, stderr=True, tail=_LAST_LINES)
        except (*ENGINE_ERRORS, TimeoutError):
            return ""
        text = "".join(f"\n{line.rstrip()}" for line in lines)[-_LAST_CHARACTERS:]
        return text.encode("utf-8", "replace").decode()

    def _reason(self, otherwise: FailureReason) -> FailureReason:
        return FailureReason.OUT_OF_MEMORY if self._out_of_memory else otherwise

    def _how_it_ended(self) -> str:
        if self._out_of_memory:
            return "the container used more memory than its limit and was killed"
        if self._exit_status is None:
            return "the container is gone"
        return f"the container exited with status {self._exit_status}"

    async def _watch(self) -> None:
        """Return once the container has ended."""
        while True:
            try:
                ended: dict[str, Any] = await self._container.wait()
                self._exit_status = int(ended["StatusCode"])
            except DockerError as error:
                if error.status == 404:
                    return
            except ENGINE_ERRORS:
                pass  # the engine is away; ask again
            else:
                # Read before anybody is notified of the end, since the container is removed then.
                self._last_words, self._out_of_memory = await asyncio.gather(
                    self.last_lines(), self._was_out_of_memory()
                )
                return
            await asyncio.sleep(_WATCH_RETRY_INTERVAL)

    async def _was_out_of_memory(self) -> bool:
        try:
            async with asyncio.timeout(_REMOVE_TIMEOUT):
                state = (await self._container.show())["State"]
        except (*ENGINE_ERRORS, TimeoutError):
            return False
        return bool(state.get("OOMKilled"))

    async def _answers(self) -> bool:
        """Return whether the container takes requests, as far as can be told without running its function."""
        return await (self._listens() if self._check is None else self._passes(self._check))

    async def _passes(self, check: HealthCheck) -> bool:
        """Return whether the health check passes."""
        try:
            async with self._probes.get(
                self._origin + check.path, allow_redirects=False, timeout=_PROBE_TIMEOUT
            ) as response:
                self.why_not_ready = f"its {check.path} answers with status {response.status}"
                return check.passes(response.status)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return False
        except (aiohttp.ServerConnectionError, aiohttp.ClientOSError):
            # It took the connection, so it listens, and has no answer to this. But a published port takes connections
            # even while nobody listens in the container, and closes them.
            self.why_not_ready = f"its {check.path} does not answer"
            return self._direct and not check.named
        except aiohttp.ClientError:
            self.why_not_ready = f"its {check.path} does not answer"
            return not check.named

    async def _listens(self) -> bool:
        """Return whether the port takes connections."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError):
            return False
        try:
            if self._direct:
                return True
            async with asyncio.timeout(_FORWARD_TIMEOUT):
                return bool(await reader.read(1))
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            writer.close()
