"""One dispatch of an invocation to this worker: what is to be run, under which fencing token, and until when."""

from __future__ import annotations

from dataclasses import dataclass

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.limits import SHORT_RETRY_DELAY
from homing_core.wire.v1 import BodyAccess, Token


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatch:
    """What its message says of a dispatch, whether its caller waits for it or not."""

    invocation_id: str
    spec: api.InvocationSpec
    token: Token
    """The fencing token: an event under a lower one than the store has seen is stale."""
    create_us: int
    """When the invocation was accepted."""
    function_revision: int
    """The revision that its function had then; nothing older runs it."""
    traceparent: str
    bodies: BodyAccess
    """Where bodies are read and written that are too large for messages."""
    sync: bool = False
    """Whether its caller waits: it is given a slot before those whose callers do not."""
    stream_url: str = ""
    """Where its caller takes the answer as it comes; empty where it is wanted whole."""
    prior_attempts: int = 0
    """The attempts of earlier dispatches that count against the retry policy."""


class TooLateError(Exception):
    """No attempt may start any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Until when the attempts of a dispatch may start and run."""

    start_by_us: int = 0
    """The first attempt must not start after this; 0: it may."""
    deadline_us: int = 0
    """No attempt may start after this, or run past it; 0: there is none."""

    def check_start(self, *, first: bool) -> None:
        """Check that an attempt may start now.

        :raises TooLateError: It is too late.
        """
        now = now_us()
        if (self.deadline_us and now >= self.deadline_us) or (first and self.start_by_us and now > self.start_by_us):
            raise TooLateError

    def start_timeout(self, *, first: bool) -> float | None:
        """Return the seconds within which an attempt has to start; None: it may wait for ever."""
        if self.deadline_us:
            return self._until_deadline()
        return max(0.0, (self.start_by_us - now_us()) / 1e6) if first and self.start_by_us else None

    def attempt_timeout(self, configured: float) -> float:
        """Return the seconds that an attempt may run which starts now.

        :param configured: The seconds that the invocation or its function allows.
        """
        return min(configured, self._until_deadline()) if self.deadline_us else configured

    def waits_here(self, delay: float) -> bool:
        """Return whether a backoff is waited for at this worker: one that the deadline permits, else a short one.

        :param delay: Seconds until the next attempt.
        """
        if self.deadline_us:
            return now_us() + delay * 1e6 < self.deadline_us
        return delay <= SHORT_RETRY_DELAY

    def _until_deadline(self) -> float:
        return max(0.0, (self.deadline_us - now_us()) / 1e6)
