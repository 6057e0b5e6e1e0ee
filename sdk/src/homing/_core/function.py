"""Functions as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from homing._core.policy import RetryPolicy
from homing.v1 import function_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one instance of a function may use; 0 means what its worker allows by default."""

    memory_bytes: int = 0
    """Memory in bytes, at least 6 MiB."""
    cpu_millis: int = 0
    """Processor time in thousandths of a core."""
    pids: int = 0
    """Processes and threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A named piece of work: a container image, a command or a URL. What is None takes the server's default."""

    name: str
    """Its name."""
    image: str | None
    """The container image, which answers HTTP on port 8080."""
    command: Sequence[str] | None
    """The program and its arguments, run on the worker's host once a call."""
    http_command: Sequence[str] | None
    """The program and its arguments, which stays on the worker's host and answers HTTP on the port in ``PORT``."""
    url: str | None
    """Where the function already runs."""
    env: Mapping[str, str]
    """Environment variables of its instances."""
    labels: Mapping[str, str]
    """For finding it."""
    annotations: Mapping[str, str]
    """For tools."""
    secrets: Sequence[str]
    """Names of the secrets that its instances see as files."""
    limits: Limits
    """What one instance may use."""
    concurrency: int
    """How many invocations one instance runs at a time; 0 means the default, 1."""
    min_instances: int
    """How many instances each worker keeps at least."""
    max_instances: int
    """How many instances each worker starts at most; 0 means the default, 4."""
    idle_timeout: timedelta | None
    """How long an instance above min_instances idles before it is stopped; 5 min by default."""
    retry_policy: RetryPolicy | None
    """The default of its invocations."""
    attempt_timeout: timedelta | None
    """The default of its invocations; 5 min by default."""
    max_age: timedelta | None
    """The default of its invocations; 24 h by default."""
    retention: timedelta | None
    """How long ended records are kept; 7 days by default."""
    record_sync: bool
    """Whether synchronous calls leave records."""
    on_success: Sequence[str]
    """Where the envelopes of its asynchronous invocations go that succeed, unless they bring their own destinations."""
    on_failure: Sequence[str]
    """Where those go that end otherwise, unless they bring their own."""
    public: bool
    """Whether it may be invoked without a key."""
    paused: bool
    """Whether its invocations are held."""
    revision: int
    """Counts the changes of the function."""
    create_time: datetime | None
    """When it was first deployed."""
    update_time: datetime | None
    """When it was last changed."""
    message: function_pb2.Function = field(repr=False, compare=False)
    """The function as the server sent it, with what this SDK does not show; not to be changed."""
