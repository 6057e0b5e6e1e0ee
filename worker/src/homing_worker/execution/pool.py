"""The instances of one function at this worker: cold starts on demand, warm instances, scaling to zero, replacement."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from homing.v1.function_pb2 import Function
from homing_core.reasons import FailureReason
from homing_core.retry import RetryPolicy
from homing_worker.control.secrets import SecretLink, SecretsUnavailableError
from homing_worker.execution.function_config import FunctionConfig
from homing_worker.execution.slots import PoolClosedError, PooledInstance, Slot, SlotQueue
from homing_worker.runtime import Instance, Runtime, StartFailedError

_log = structlog.get_logger(__name__)

_FIRST_START_BACKOFF: Final = 0.25
_MAX_START_BACKOFF: Final = 10.0
"""Bounds of the backoff after starts that failed in a row, in seconds, so that a broken function does not keep the
engine busy."""
_MIN_IDLE_CHECK: Final = 0.05
"""Seconds between two looks at what idles, at least."""


class Pool:
    """Hands out slots on the instances of one function; synchronous callers go first, else first come, first served."""

    def __init__(
        self,
        function: Function,
        runtime: Runtime,
        secrets: SecretLink,
        *,
        secrets_version: int = 0,
        deleted_revision: int = 0,
    ) -> None:
        """Prepare to start instances.

        :param secrets: Knows the secrets that instances see.
        :param secrets_version: The version that they have at least; 0 where the function has none.
        :param deleted_revision: See the attribute of this name.
        """
        self.deleted_revision = deleted_revision
        """Up to which revision functions of this name are gone, this one too where it is deleted; 0 for none."""
        self._config = FunctionConfig.of(function, secrets_version)
        self._runtime = runtime
        self._secrets = secrets
        self._members: list[PooledInstance] = []
        self._waiting = SlotQueue()
        self._starting = 0
        self._failed_starts = 0
        self._backoff_until = 0.0
        self._image_id = ""
        """The image that instances are made from, whatever its name stands for by now; empty before the first one."""
        self._closed = False
        self._changed = asyncio.Event()
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
        return self._config.max_instances * self._config.concurrency

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
        """Whether a caller that waits now waits for a cold start: no instance is warm."""
        return not self._serving

    @property
    def _serving(self) -> list[PooledInstance]:
        """The instances that are not about to be stopped."""
        return [member for member in self._members if not member.retiring]

    def warm_up(self) -> None:
        """Start the instances that are kept warm."""
        self._scale_up()

    async def reach(self, revision: int) -> None:
        """Wait until the function is known as it was under a revision, or later.

        :raises PoolClosedError: The pool was closed.
        """
        while self.function.revision < revision:
            if self._closed:
                raise PoolClosedError
            self._changed.clear()
            await self._changed.wait()

    def update(self, function: Function, *, secrets_version: int = 0, deleted_revision: int = 0) -> None:
        """Take the function as it is now: instances that are made otherwise, or see former secrets, get no more calls.

        They are stopped after the last. Where it is only paused, resumed or scaled they stay, as many as there may be.
        """
        before = self._config
        if function.revision == before.function.revision and secrets_version == before.secrets_version:
            return
        self._config = FunctionConfig.of(function, secrets_version)
        self.deleted_revision = max(self.deleted_revision, deleted_revision)
        self._changed.set()
        if self._config.has_same_instances(before):
            for member in sorted(self._serving, key=lambda member: member.busy)[: -self._config.max_instances]:
                self._retire(member)
            if self._idle_timer is None and not self._closed:
                self._arm_idle_timer(0)
        else:
            self._image_id = ""
            self._failed_starts = 0
            self._backoff_until = 0.0
            for member in list(self._members):
                self._retire(member)
        self._scale_up()

    def take(self) -> Slot | None:
        """Return a free slot where there is one and nobody waits for it."""
        if self._waiting or self._closed:
            return None
        return self._find()

    async def wait(self, *, sync: bool) -> Slot:
        """Return a slot once one is free.

        :raises StartFailedError: No instance runs and the one that was started for it did not start.
        :raises PoolClosedError: The pool was closed.
        """
        if self._closed:
            raise PoolClosedError
        waiter = self._waiting.add(sync=sync)
        self._serve()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            else:
                self._waiting.discard(waiter)
            raise

    def release(self, slot: Slot) -> None:
        """Take a slot back. Its instance is replaced where it is to be retired, and verified where it is suspect."""
        member = slot.member
        member.busy -= 1
        if slot.retire:
            self._retire(member)
        elif slot.suspect and not member.retiring and not member.suspect:
            member.suspect = True
            self._spawn(self._verify(member))
        if member.busy == 0:
            member.idle_since = self._loop.time()
            if member.retiring:
                self._stop(member)
            elif self._idle_timer is None and not self._closed:
                self._arm_idle_timer(self._config.idle_timeout)
        self._serve()
        if slot.retire:
            self._scale_up()

    async def close(self) -> None:
        """Let waiting callers go and stop all instances, busy ones too."""
        self.refuse()
        for task in list(self._tasks):
            task.cancel()
        members, self._members = self._members, []
        await asyncio.gather(*(member.instance.stop() for member in members), *self._tasks, return_exceptions=True)

    def refuse(self, deleted_revision: int = 0) -> None:
        """Let waiting callers go and start nothing more; calls that run go on.

        :param deleted_revision: Up to which revision the function is gone, where that is the reason.
        """
        self._closed = True
        self.deleted_revision = max(self.deleted_revision, deleted_revision)
        self._changed.set()
        for timer in (self._idle_timer, self._start_timer):
            if timer is not None:
                timer.cancel()
        self._waiting.fail(PoolClosedError)

    def _find(self) -> Slot | None:
        for member in self._members:
            if member.free:
                member.busy += 1
                return Slot(member)
        return None

    def _serve(self) -> None:
        """Give free slots to those who wait, and start instances for the others."""
        while (waiter := self._waiting.first()) is not None:
            slot = self._find()
            if slot is None:
                self._scale_up()
                return
            waiter.set_result(slot)

    def _scale_up(self) -> None:
        """Start as many instances as those who wait need, and as many as are kept warm."""
        if self._closed:
            return
        config = self._config
        current = len(self._serving)
        wanted = max(config.min_instances - current, -(-len(self._waiting) // config.concurrency))
        wanted = min(wanted, config.max_instances - current) - self._starting
        if wanted <= 0:
            return
        backoff = self._backoff_until - self._loop.time()
        if backoff > 0:
            if self._start_timer is None:
                self._start_timer = self._loop.call_later(backoff, self._after_backoff)
            return
        if self._failed_starts:
            # After a failure one start tries whether it works again.
            wanted = min(wanted, 1 - self._starting)
        for _ in range(wanted):
            self._starting += 1
            self._spawn(self._start(config))

    def _after_backoff(self) -> None:
        self._start_timer = None
        self._scale_up()

    async def _start(self, config: FunctionConfig) -> None:
        function = config.function
        try:
            try:
                secrets = await self._secrets.secrets(function.name, function.secrets, config.secrets_version)
            except SecretsUnavailableError as error:
                raise StartFailedError(
                    FailureReason.SECRETS_UNAVAILABLE, f"its secrets are not here: {error}"
                ) from error
            instance = await self._runtime.start(function, secrets, image_id=self._image_id)
        except StartFailedError as error:
            self._starting -= 1
            self._start_failed(config, error)
        except BaseException:
            self._starting -= 1
            raise
        else:
            self._starting -= 1
            await self._started(config, instance)

    async def _started(self, config: FunctionConfig, instance: Instance) -> None:
        outdated = not config.has_same_instances(self._config) or self._differs(instance)
        if self._closed or outdated or len(self._serving) >= self._config.max_instances:
            await instance.stop()
            self._serve()
            self._scale_up()
            return
        self._failed_starts = 0
        self._image_id = instance.image_id
        member = PooledInstance(instance, self._config.concurrency, idle_since=self._loop.time())
        self._members.append(member)
        instance.on_exit(lambda: self._gone(member))
        if self._idle_timer is None:
            self._arm_idle_timer(self._config.idle_timeout)
        self._serve()

    def _differs(self, instance: Instance) -> bool:
        """Return whether an instance is made from another image than those that serve: its name was given to another.

        That comes of two that started at a time before it was known which image it is.
        """
        return any(member.instance.image_id != instance.image_id for member in self._serving)

    def _start_failed(self, config: FunctionConfig, error: StartFailedError) -> None:
        # What follows on the first line the function wrote: that is its caller's to see.
        detail = error.message.partition("\n")[0]
        _log.warning("start_failed", function=config.function.name, reason=error.reason, detail=detail)
        if self._closed or not config.has_same_instances(self._config):
            self._serve()
            self._scale_up()
            return
        self._failed_starts += 1
        backoff = min(_MAX_START_BACKOFF, _FIRST_START_BACKOFF * 2 ** min(self._failed_starts - 1, 10))
        self._backoff_until = self._loop.time() + backoff
        if self.cold and not self._starting:
            # Nobody can serve those who wait: each of them learns why.
            self._waiting.fail(lambda: StartFailedError(error.reason, error.message))
        self._scale_up()

    def _retire(self, member: PooledInstance) -> None:
        member.retiring = True
        if member.busy == 0:
            self._stop(member)

    def _stop(self, member: PooledInstance) -> None:
        if member in self._members:
            self._members.remove(member)
            self._spawn(member.instance.stop())

    def _gone(self, member: PooledInstance) -> None:
        """Replace an instance that has gone by itself."""
        if member not in self._members or self._closed:
            return
        _log.warning("instance_gone", function=self._config.function.name, instance=member.instance.name)
        member.retiring = True
        self._stop(member)
        self._serve()
        self._scale_up()

    async def _verify(self, member: PooledInstance) -> None:
        if await member.instance.verify():
            member.suspect = False
        else:
            self._gone(member)
        self._serve()

    def _arm_idle_timer(self, delay: float) -> None:
        self._idle_timer = self._loop.call_later(max(_MIN_IDLE_CHECK, delay), self._scale_down)

    def _scale_down(self) -> None:
        """Stop the instances that have idled for long, as far as they are not kept warm."""
        self._idle_timer = None
        now = self._loop.time()
        timeout = self._config.idle_timeout
        spare = len(self._serving) - self._config.min_instances
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
