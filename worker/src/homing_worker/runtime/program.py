"""A program of this host that was started: its process, its pipes, its end.

It leads a session of its own and gets descriptors 0, 1 and 2 and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Final

from homing_core.limits import KIB

_READ_BYTES: Final = 64 * KIB

INHERITED: Final = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ")
"""What a program sees of the worker's environment: not the rest, which may hold secrets of the worker."""
_OF_USER: Final = frozenset({"HOME", "USER", "TMPDIR"})
"""Of these what tells of the worker's own user."""
SECRETS_VARIABLE: Final = "HOMING_SECRETS_DIR"
"""Where a program finds the folder with its secrets."""


def environment_of(env: Mapping[str, str], user: int | None) -> dict[str, str]:
    """Return the environment of a function's programs.

    :param env: The variables of the function.
    :param user: The UID that they run as; None for the worker's own.
    """
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    if user is not None:
        inherited = {name: value for name, value in inherited.items() if name not in _OF_USER} | {"HOME": "/"}
    return {**inherited, **env}


class Program:
    """A program that was started."""

    def __init__(
        self,
        args: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int | IO[bytes],
        user: int | None = None,
        leaves_nothing: bool = False,
    ) -> None:
        """Start it.

        :param user: The UID and GID that it runs as, in the folder /; None for the worker's own, where the worker is.
        :param leaves_nothing: Whether what is left of its process group is killed once it has ended.
        :raises OSError: It cannot be started.
        :raises ValueError: It cannot be: there is a NUL in it or in its environment.
        """
        # The standard library's closes what is not to be inherited, uvloop's does not.
        self._process = subprocess.Popen(  # noqa: S603 that is what it is for
            args,
            bufsize=0,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            cwd=None if user is None else "/",
        )
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._leaves_nothing = leaves_nothing
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """The exit status, negative for a signal, once it has ended. Nobody cancels it."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        self._watch_exit()

    @property
    def pid(self) -> int:
        """The id of its process, and of its session and process group."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and what it has started, unless it has ended."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _watch_exit(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(self._process.pid)
                self._loop.add_reader(pidfd, self._reap, pidfd)
                return
        waiting = self._loop.run_in_executor(None, self._process.wait)
        waiting.add_done_callback(lambda _: self._on_exit())

    def _reap(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if self._leaves_nothing:
            # Before it is waited for: until then no other process group has its number.
            self.signal(signal.SIGKILL)
        self._on_exit()

    def _on_exit(self) -> None:
        self.exited.set_result(self._process.wait())


def read_some(pipe: IO[bytes]) -> bytes | None:
    """Return a part of what is in a pipe; nothing at its end, None where there is nothing now."""
    try:
        return os.read(pipe.fileno(), _READ_BYTES)
    except BlockingIOError:
        return None


def how_it_ended(status: int) -> str:
    """Return in words how a program ended, given its exit status, negative for a signal."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
