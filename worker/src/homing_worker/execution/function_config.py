"""What the worker heeds of a function: its defaults filled in, and whether instances of one revision serve another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from homing.v1.function_pb2 import Function
from homing_core import limits
from homing_core.retry import RetryPolicy, resolve_attempt_timeout

_NOT_IN_INSTANCES: Final = ("paused", "min_instances", "max_instances", "revision", "update_time")
"""The fields of a function that change without its instances being replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionConfig:
    """A revision of a function, with its defaults."""

    function: Function
    secrets_version: int
    """The version that its secrets have at least; 0 where it has none."""
    template: Function
    """What instances are made from: the function without the fields that do not matter to them."""
    concurrency: int
    """How many calls an instance serves at a time."""
    min_instances: int
    """How many instances are kept warm."""
    max_instances: int
    idle_timeout: float
    """Seconds after which an instance that serves no call is stopped."""
    policy: RetryPolicy
    """The retry policy of invocations that bring none."""
    attempt_timeout: float
    """Seconds that an attempt may run where its invocation does not say."""

    @classmethod
    def of(cls, function: Function, secrets_version: int) -> FunctionConfig:
        """Read a function."""
        template = Function()
        template.CopyFrom(function)
        for name in _NOT_IN_INSTANCES:
            template.ClearField(name)
        max_instances = function.max_instances or limits.DEFAULT_MAX_INSTANCES
        idle = function.idle_timeout
        return cls(
            function=function,
            secrets_version=secrets_version,
            template=template,
            concurrency=function.concurrency or limits.DEFAULT_CONCURRENCY,
            min_instances=min(function.min_instances, max_instances),
            max_instances=max_instances,
            idle_timeout=(
                idle.seconds + idle.nanos / 1e9 if function.HasField("idle_timeout") else limits.DEFAULT_IDLE_TIMEOUT
            ),
            policy=RetryPolicy.resolve(None, function.retry_policy),
            attempt_timeout=resolve_attempt_timeout(
                None, function.attempt_timeout if function.HasField("attempt_timeout") else None
            ),
        )

    def has_same_instances(self, other: FunctionConfig) -> bool:
        """Return whether instances of the one serve for the other: they are made alike, and see the same secrets."""
        return self.template == other.template and self.secrets_version == other.secrets_version
