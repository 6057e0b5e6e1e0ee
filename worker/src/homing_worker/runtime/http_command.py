"""Runs commands of this host that serve HTTP: an instance is a process, started once, that takes call after call."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from homing.v1.function_pb2 import Function
from homing_core.reasons import FailureReason
from homing_worker.owner import OwnerLock, is_orphaned
from homing_worker.runtime.base import Instance, Runtime, StartFailedError
from homing_worker.runtime.command_users import CommandUsers
from homing_worker.runtime.health_check import annotated_check
from homing_worker.runtime.http_program import HOST, HOST_VARIABLE, PORT_VARIABLE, HttpProgram, PortTakenError, Show
from homing_worker.runtime.listening_port import free_port
from homing_worker.runtime.out_of_memory import OutOfMemoryKills
from homing_worker.runtime.program import SECRETS_VARIABLE, Program, environment_of
from homing_worker.runtime.secret_files import SecretFiles

_log = structlog.get_logger(__name__)

_OWNER_VARIABLE: Final = "HOMING_WORKER"
"""By this a worker finds the programs that an earlier one of its data folder left behind."""

_PORTS_TRIED: Final = 3
"""On so many ports it is started, where others have taken the one that was free."""


class HttpCommandRuntime(Runtime):
    """Runs functions that are commands which serve HTTP, each instance a process of its own."""

    source = "http_command"

    def __init__(
        self,
        files: SecretFiles,
        users: CommandUsers,
        *,
        data_dir: Path,
        owner: str,
        start_timeout: float,
        stop_grace: float,
        show: Show | None = None,
    ) -> None:
        """Prepare to run commands.

        :param files: Lays out secrets for instances.
        :param users: Gives each instance the user that it runs as.
        :param owner: The name of this worker.
        :param start_timeout: Seconds that an instance has to become ready.
        :param stop_grace: Seconds between SIGTERM and SIGKILL when one is stopped.
        :param show: Is given what they write, with the names of their functions.
        """
        self._files = files
        self._users = users
        self._data_dir = data_dir.resolve()
        self._owner = f"{owner}-programs"
        self._lock = OwnerLock(self._data_dir, self._owner)
        self._start_timeout = start_timeout
        self._stop_grace = stop_grace
        self._show = show
        self._kills = OutOfMemoryKills()
        self._probes: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """End what workers of the same data folder left behind that died."""
        self._lock.take()
        self._probes = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), cookie_jar=aiohttp.DummyCookieJar()
        )
        _end_orphans(self._data_dir)

    async def close(self) -> None:
        """Free the lock; instances are stopped by whoever has them."""
        if self._probes is not None:
            await self._probes.close()
        self._lock.release()

    async def start(
        self,
        function: Function,
        secrets: Mapping[str, bytes],
        *,
        image_id: str = "",  # noqa: ARG002 it is no image
    ) -> Instance:
        """Start the program and wait until it is ready."""
        assert self._probes is not None
        for _ in range(_PORTS_TRIED):
            instance = self._spawn(function, secrets)
            try:
                async with asyncio.timeout(self._start_timeout):
                    await instance.become_ready(self._probes)
            except PortTakenError:
                _log.info("port_taken", function=function.name, port=instance.port)
                await instance.stop()
            except TimeoutError as error:
                words = f"the program was not ready within {self._start_timeout:g} s: {instance.why_not_ready}"
                await instance.kill()
                await instance.stop()
                raise StartFailedError(FailureReason.START_FAILED, words + instance.last_words()) from error
            except BaseException:
                await instance.stop()
                raise
            else:
                return instance
        raise StartFailedError(
            FailureReason.START_FAILED, "each port that was free for it was taken before it listened"
        )

    def _spawn(self, function: Function, secrets: Mapping[str, bytes]) -> HttpProgram:
        user = self._users.take()
        folder: Path | None = None

        def free() -> None:
            self._users.give_back(user)
            if folder is not None:
                self._files.remove(folder)

        try:
            if secrets:
                folder = self._files.lay_out(secrets, owner=user)
            port = free_port()
            environment = environment_of(function.env, user) | {
                HOST_VARIABLE: HOST,
                PORT_VARIABLE: str(port),
                _OWNER_VARIABLE: _mark(self._data_dir, self._owner),
            }
            if folder is not None:
                environment[SECRETS_VARIABLE] = str(folder)
            program = Program(
                tuple(function.http_command.args),
                environment,
                stdin=subprocess.DEVNULL,
                user=user,
                leaves_nothing=True,
            )
        except (OSError, ValueError) as error:
            laid_out = folder is not None or not secrets
            free()
            if not laid_out and isinstance(error, OSError):
                message = f"its secrets cannot be laid out: {error.strerror}"
                raise StartFailedError(FailureReason.SECRETS_UNAVAILABLE, message) from error
            who = "" if user is None else f" by user {user}, of HOMING_COMMAND_USERS"
            raise StartFailedError(FailureReason.START_FAILED, f"the command cannot be run{who}: {error}") from error
        return HttpProgram(
            program,
            revision=function.revision,
            port=port,
            check=annotated_check(function.annotations),
            stop_grace=self._stop_grace,
            kills=self._kills,
            show=None if self._show is None else partial(self._show, function.name),
            free=free,
        )


def _mark(data_dir: Path, owner: str) -> str:
    return f"{owner}@{data_dir}"


def _end_orphans(data_dir: Path) -> None:
    """Kill the programs of workers of a data folder that live no more, as Linux tells of them."""
    if sys.platform != "linux":
        return
    orphaned = cache(lambda owner: is_orphaned(data_dir, owner))
    begin, end = f"{_OWNER_VARIABLE}=".encode(), os.fsencode(f"@{data_dir}")
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if not entry.name.isdecimal():
                continue
            pidfd = os.pidfd_open(int(entry.name))
            try:
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    if variable.startswith(begin) and variable.endswith(end):
                        owner = variable.removeprefix(begin).removesuffix(end).decode()
                        if orphaned(owner):
                            _log.info("orphaned_program_found", owner=owner, pid=int(entry.name))
                            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
