"""The instances of one function at this worker: started on demand, kept warm, stopped when idle or outdated."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from homing.v1.function_pb2 import Function
from homing_core import limits
from homing_core.reasons import FailureReason
from homing_core.retry import RetryPolicy, resolve_attempt_timeout
from homing_worker.control.secrets import SecretLink, SecretsUnavailableError
from homing_worker.runtime import Instance, Runtime, StartFailedError

_log = structlog.get_logger(__name__)

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
"""Bounds of the pause after starts that failed in a row, so that a broken function does not keep the engine busy."""


_NOT_IN_INSTANCES: Final = ("paused", "min_instances", "max_instances", "revision", "update_time")
"""The fields of a function that change without its instances being replaced."""


class PoolClosedError(Exception):
    """The pool starts nothing more."""

    def __init__(self, since_us: int) -> None:
        super().__init__("the pool is closed")
        self.since_us = since_us
        """When its function was deleted; 0 where it was not."""


@dataclass(slots=True, eq=False)
class Slot:
    """The right to make one call of an instance."""

    instance: Instance
    member: _Member

    async def abandon(self) -> bool:
        """See to it that a call which was cancelled ends; tell whether it surely has.

        An instance that served this call alone is killed, and is to be retired.
        """
        if self.instance.isolates_calls:
            return True
        return self.member.concurrency == 1 and await self.instance.kill()


@dataclass(slots=True, eq=False)
class _Member:
    instance: Instance
    concurrency: int
    busy: int = 0
    idle_since: float = 0.0
    retiring: bool = False
    suspect: bool = False

    @property
    def free(self) -> bool:
        return self.busy < self.concurrency and not self.retiring and not self.suspect and self.instance.alive


@dataclass(slots=True)
class _Config:
    """What of a function matters here, with its defaults."""

    function: Function
    secrets_version: int
    template: Function = field(init=False)
    """What instances are made from: those of other revisions with the same one serve as well."""
    concurrency: int = field(init=False)
    minimum: int = field(init=False)
    maximum: int = field(init=False)
    idle_timeout: float = field(init=False)
    policy: RetryPolicy = field(init=False)
    attempt_timeout: float = field(init=False)

    def __post_init__(self) -> None:
        function = self.function
        self.template = Function()
        self.template.CopyFrom(function)
        for name in _NOT_IN_INSTANCES:
            self.template.ClearField(name)
        self.concurrency = function.concurrency or limits.DEFAULT_CONCURRENCY
        self.maximum = function.max_instances or limits.DEFAULT_MAX_INSTANCES
        self.minimum = min(function.min_instances, self.maximum)
        self.policy = RetryPolicy.resolve(None, function.retry_policy)
        self.attempt_timeout = resolve_attempt_timeout(
            None, function.attempt_timeout if function.HasField("attempt_timeout") else None
        )
        given = function.idle_timeout
        self.idle_timeout = (
            given.seconds + given.nanos / 1e9 if function.HasField("idle_timeout") else limits.DEFAULT_IDLE_TIMEOUT
        )

    def makes_the_same(self, other: _Config) -> bool:
        """Tell whether instances of the one serve for the other."""
        return self.template == other.template and self.secrets_version == other.secrets_version


class Pool:
    """Hands out slots on the instances of one function; synchronous callers go first, else first come, first served."""

    def __init__(self, function: Function, runtime: Runtime, secrets: SecretLink, *, secrets_version: int = 0) -> None:
        """Prepare to start instances.

        :param secrets: Knows the secrets that instances see.
        :param secrets_version: The version that they have at least; 0 where the function has none.
        """
        self._config = _Config(function, secrets_version)
        self._runtime = runtime
        self._secrets = secrets
        self._members: list[_Member] = []
        self._sync_waiters: deque[asyncio.Future[Slot]] = deque()
        self._waiters: deque[asyncio.Future[Slot]] = deque()
        self._starting = 0
        self._failures = 0
        self._not_before = 0.0
        self._closed = False
        self._deleted_us = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._start_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def function(self) -> Function:
        """The function as instances are started now."""
        return self._config.function

    @property
    def host(self) -> str:
        """The address at which instances reach this host; empty where they cannot."""
        return self._runtime.host

    @property
    def policy(self) -> RetryPolicy:
        """The retry policy of invocations that bring none."""
        return self._config.policy

    @property
    def attempt_timeout(self) -> float:
        """How many seconds an attempt may run where the invocation does not say."""
        return self._config.attempt_timeout

    @property
    def capacity(self) -> int:
        """How many calls can run at a time when all instances run."""
        return self._config.maximum * self._config.concurrency

    @property
    def instances(self) -> int:
        """How many instances run."""
        return len(self._members)

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return sum(member.busy for member in self._members)

    @property
    def cold(self) -> bool:
        """Whether a caller that waits now waits for an instance to start."""
        return not self._serving

    @property
    def _serving(self) -> list[_Member]:
        """The instances that are not about to be stopped."""
        return [member for member in self._members if not member.retiring]

    def open(self) -> None:
        """Start the instances that are kept warm."""
        self._grow()

    def update(self, function: Function, *, secrets_version: int = 0) -> None:
        """Take the function as it is now: instances that are made otherwise, or see former secrets, get no more calls.

        They are stopped after the last. Where it is only paused, resumed or scaled they stay, as many as there may be.
        """
        before = self._config
        if function.revision == before.function.revision and secrets_version == before.secrets_version:
            return
        self._config = _Config(function, secrets_version)
        if self._config.makes_the_same(before):
            for member in sorted(self._serving, key=lambda member: member.busy)[: -self._config.maximum]:
                self._retire(member)
            if self._idle_timer is None and not self._closed:
                self._arm_idle_timer(0)
        else:
            self._failures = 0
            self._not_before = 0.0
            for member in list(self._members):
                self._retire(member)
        self._grow()

    def take(self) -> Slot | None:
        """Return a free slot where there is one and nobody waits for it."""
        if self._sync_waiters or self._waiters or self._closed:
            return None
        return self._find()

    async def wait(self, *, sync: bool) -> Slot:
        """Return a slot once one is free.

        :raises StartFailedError: No instance runs and the one that was started for it did not start.
        :raises PoolClosedError: The pool was closed.
        """
        if self._closed:
            raise PoolClosedError(self._deleted_us)
        future: asyncio.Future[Slot] = self._loop.create_future()
        queue = self._sync_waiters if sync else self._waiters
        queue.append(future)
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())
            elif future in queue:
                queue.remove(future)
            raise

    def release(self, slot: Slot, *, retire: bool = False, suspect: bool = False) -> None:
        """Give a slot back.

        :param retire: The instance is to be replaced.
        :param suspect: The instance may be gone: it gets no calls until it was found to run.
        """
        member = slot.member
        member.busy -= 1
        if retire:
            self._retire(member)
        elif suspect and not member.retiring and not member.suspect:
            member.suspect = True
            self._spawn(self._verify(member))
        if member.busy == 0:
            member.idle_since = self._loop.time()
            if member.retiring:
                self._stop(member)
            elif self._idle_timer is None and not self._closed:
                self._arm_idle_timer(self._config.idle_timeout)
        self._serve()
        if retire:
            self._grow()

    async def close(self) -> None:
        """Let waiting callers go and stop all instances, busy ones too."""
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        members, self._members = self._members, []
        await asyncio.gather(*(member.instance.stop() for member in members), *self._tasks, return_exceptions=True)

    def refuse(self, deleted_us: int = 0) -> None:
        """Let waiting callers go and start nothing more; calls that run go on.

        :param deleted_us: When the function was deleted, where that is the reason.
        """
        self._closed = True
        self._deleted_us = deleted_us
        for timer in (self._idle_timer, self._start_timer):
            if timer is not None:
                timer.cancel()
        for queue in (self._sync_waiters, self._waiters):
            for future in queue:
                if not future.done():
                    future.set_exception(PoolClosedError(deleted_us))
            queue.clear()

    def _find(self) -> Slot | None:
        for member in self._members:
            if member.free:
                member.busy += 1
                return Slot(member.instance, member)
        return None

    def _serve(self) -> None:
        """Give free slots to those who wait, and start instances for the others."""
        for queue in (self._sync_waiters, self._waiters):
            while queue:
                if queue[0].done():
                    queue.popleft()
                    continue
                slot = self._find()
                if slot is None:
                    self._grow()
                    return
                queue.popleft().set_result(slot)

    def _grow(self) -> None:
        """Start as many instances as those who wait need, and as many as are kept warm."""
        if self._closed:
            return
        config = self._config
        waiting = len(self._sync_waiters) + len(self._waiters)
        current = len(self._serving)
        wanted = max(config.minimum - current, -(-waiting // config.concurrency))
        wanted = min(wanted, config.maximum - current) - self._starting
        if wanted <= 0:
            return
        pause = self._not_before - self._loop.time()
        if pause > 0:
            if self._start_timer is None:
                self._start_timer = self._loop.call_later(pause, self._after_pause)
            return
        if self._failures:
            # After a failure one start tries whether it works again.
            wanted = min(wanted, 1 - self._starting)
        for _ in range(wanted):
            self._starting += 1
            self._spawn(self._start(config))

    def _after_pause(self) -> None:
        self._start_timer = None
        self._grow()

    async def _start(self, config: _Config) -> None:
        function = config.function
        try:
            try:
                secrets = await self._secrets.secrets(function.name, function.secrets, config.secrets_version)
            except SecretsUnavailableError as error:
                raise StartFailedError(
                    FailureReason.SECRETS_UNAVAILABLE, f"its secrets are not here: {error}"
                ) from error
            instance = await self._runtime.start(function, secrets)
        except StartFailedError as error:
            self._starting -= 1
            self._start_failed(config, error)
        except BaseException:
            self._starting -= 1
            raise
        else:
            self._starting -= 1
            await self._started(config, instance)

    async def _started(self, config: _Config, instance: Instance) -> None:
        outdated = not config.makes_the_same(self._config)
        if self._closed or outdated or len(self._serving) >= self._config.maximum:
            await instance.stop()
            self._serve()
            self._grow()
            return
        self._failures = 0
        member = _Member(instance, self._config.concurrency, idle_since=self._loop.time())
        self._members.append(member)
        instance.on_exit(lambda: self._gone(member))
        if self._idle_timer is None:
            self._arm_idle_timer(self._config.idle_timeout)
        self._serve()

    def _start_failed(self, config: _Config, error: StartFailedError) -> None:
        # What follows on the first line the function wrote: that is its caller's to see.
        detail = error.message.partition("\n")[0]
        _log.warning("start_failed", function=config.function.name, reason=error.reason, detail=detail)
        if self._closed or not config.makes_the_same(self._config):
            self._serve()
            self._grow()
            return
        self._failures += 1
        self._not_before = self._loop.time() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
        if self.cold and not self._starting:
            # Nobody can serve those who wait: each of them learns why.
            for queue in (self._sync_waiters, self._waiters):
                for future in queue:
                    if not future.done():
                        future.set_exception(StartFailedError(error.reason, error.message))
                queue.clear()
        self._grow()

    def _retire(self, member: _Member) -> None:
        member.retiring = True
        if member.busy == 0:
            self._stop(member)

    def _stop(self, member: _Member) -> None:
        if member in self._members:
            self._members.remove(member)
            self._spawn(member.instance.stop())

    def _gone(self, member: _Member) -> None:
        """Replace an instance that has gone by itself."""
        if member not in self._members or self._closed:
            return
        _log.warning("instance_gone", function=self._config.function.name, instance=member.instance.name)
        member.retiring = True
        self._stop(member)
        self._serve()
        self._grow()

    async def _verify(self, member: _Member) -> None:
        if await member.instance.verify():
            member.suspect = False
        else:
            self._gone(member)
        self._serve()

    def _arm_idle_timer(self, delay: float) -> None:
        self._idle_timer = self._loop.call_later(max(0.05, delay), self._stop_idle)

    def _stop_idle(self) -> None:
        """Stop the instances that have idled for long, as far as they are not kept warm."""
        self._idle_timer = None
        now = self._loop.time()
        timeout = self._config.idle_timeout
        spare = len(self._serving) - self._config.minimum
        next_check: float | None = None
        for member in list(reversed(self._members)):
            if member.busy or member.retiring:
                continue
            rest = member.idle_since + timeout - now
            if rest > 0:
                next_check = rest if next_check is None else min(next_check, rest)
            elif spare > 0:
                spare -= 1
                self._retire(member)
        if next_check is not None and spare > 0:
            self._arm_idle_timer(next_check)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
