"""Runs a command on this host once a call, the way a classic watchdog does: body on stdin, result on stdout."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from homing.v1.function_pb2 import Function
from homing_core.ids import new_id
from homing_core.reasons import FailureReason
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.base import Answer, CallFailedError, Instance, Request, Runtime
from homing_worker.runtime.command_run import CommandRun
from homing_worker.runtime.command_users import CommandUsers
from homing_worker.runtime.headers import joined, kept_headers
from homing_worker.runtime.out_of_memory import OutOfMemoryKills
from homing_worker.runtime.program import SECRETS_VARIABLE, environment_of, how_it_ended
from homing_worker.runtime.request_variables import request_variables
from homing_worker.runtime.secret_files import SecretFiles

_log = structlog.get_logger(__name__)

_FAILURE: Final = 500
"""The status code of a command that fails."""


class ProcessRuntime(Runtime):
    """Runs functions that are commands. An instance is only a place: each call has a process of its own."""

    source = "command"

    def __init__(self, files: SecretFiles, users: CommandUsers) -> None:
        """Prepare to run commands.

        :param files: Lays out secrets for calls.
        :param users: Gives each place for calls the user that its commands run as.
        """
        self._files = files
        self._users = users
        self._kills = OutOfMemoryKills()

    async def open(self) -> None:
        """Say where commands are not kept apart from the worker; there is nothing to connect to."""
        if not self._users.separate:
            _log.info("commands_run_as_worker", uid=os.getuid())

    async def close(self) -> None:
        """Do nothing: processes do not outlive their calls."""

    async def start(
        self,
        function: Function,
        secrets: Mapping[str, bytes],
        *,
        image_id: str = "",  # noqa: ARG002 it is no image
    ) -> Instance:
        """Return a place for calls of the function.

        :raises StartFailedError: There is no user left for it.
        """
        return ProcessInstance(function, secrets, self._files, self._kills, self._users)


class ProcessInstance(Instance):
    """A place for calls of a function that is a command."""

    isolates_calls = True

    def __init__(
        self,
        function: Function,
        secrets: Mapping[str, bytes],
        files: SecretFiles,
        kills: OutOfMemoryKills,
        users: CommandUsers,
    ) -> None:
        self.name = f"process-{new_id()[-8:]}"
        self.revision = function.revision
        self._args = tuple(function.command.args)
        self._users = users
        self._user = users.take()
        self._environment = environment_of(function.env, self._user)
        self._secrets = secrets
        self._files = files
        self._kills = kills

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
        """Give the user back; processes do not outlive their calls."""
        self._users.give_back(self._user)
        self._user = None

    async def call(self, request: Request, log: InvocationLog | None) -> Answer:
        """Run the command; kill it, and what it started, where the call is cancelled or it writes too much.

        What it writes to stderr is its log. Its secrets are in a folder of their own for as long as it runs.
        """
        if not self._secrets:
            return await self._run(request, log, {})
        try:
            folder = self._files.lay_out(self._secrets, owner=self._user)
        except OSError as error:
            message = f"its secrets cannot be laid out: {error.strerror}"
            raise CallFailedError(FailureReason.SECRETS_UNAVAILABLE, message) from error
        try:
            return await self._run(request, log, {SECRETS_VARIABLE: str(folder)})
        finally:
            self._files.remove(folder)

    async def _run(self, request: Request, log: InvocationLog | None, variables: Mapping[str, str]) -> Answer:
        started, kills = time.monotonic(), self._kills.count()
        stream = request.stream
        content_type = joined(request.headers).get("content-type", "")
        environment = {**self._environment, **request_variables(request), **variables}
        try:
            run = CommandRun(self._args, environment, request, log, content_type=content_type, user=self._user)
        except (OSError, ValueError) as error:
            who = "" if self._user is None else f" by user {self._user}, of HOMING_COMMAND_USERS"
            raise CallFailedError(FailureReason.START_FAILED, f"the command cannot be run{who}: {error}") from error
        try:
            status = await run.finished
            if status == 0 and stream is not None and stream.opened:
                await stream.finish()
        finally:
            await run.close()
        if status == 0:
            duration = f"{time.monotonic() - started:.6f}"
            return Answer(
                status_code=200,
                headers=kept_headers([("content-type", content_type), ("x-duration-seconds", duration)]),
                content_type=content_type,
                body=run.body,
            )
        reason = FailureReason.EXIT_STATUS
        ended = how_it_ended(status)
        if status == -signal.SIGKILL and self._kills.count() > kills:
            reason, ended = FailureReason.OUT_OF_MEMORY, "killed by the system, which had no memory left for it"
        message = "\n".join([ended, *run.last_lines])
        if stream is not None and stream.opened:
            raise CallFailedError(reason, message, status_code=_FAILURE)
        return Answer(
            status_code=_FAILURE,
            headers=[("content-type", "text/plain; charset=utf-8")],
            content_type="text/plain; charset=utf-8",
            body=run.body,
            failure=(reason, message),
        )
