"""The names that the API has for states, reasons and kinds."""

from __future__ import annotations

from enum import StrEnum


class _Name(StrEnum):
    """A name from the API; UNKNOWN stands for names that are newer than this SDK."""


class InvocationState(_Name):
    """A step in the life of an invocation."""

    UNKNOWN = "UNKNOWN"
    SCHEDULED = "SCHEDULED"
    """Waits for its schedule time."""
    ENQUEUED = "ENQUEUED"
    """Waits to be taken by a worker."""
    DEQUEUED = "DEQUEUED"
    """Taken by a worker that prepares an instance for it."""
    RUNNING = "RUNNING"
    """An attempt is running."""
    RETRYING = "RETRYING"
    """An attempt failed; waits for the next one."""
    STOPPING = "STOPPING"
    """A stop was asked for and is under way."""
    SUCCEEDED = "SUCCEEDED"
    """Ended: the function answered with a 2xx status."""
    FAILED = "FAILED"
    """Ended: its attempts are used up, or it failed in a way that is never retried."""
    TIMED_OUT = "TIMED_OUT"
    """Ended: the last attempt ran past its attempt time-out."""
    STOPPED = "STOPPED"
    """Ended: stopped by request."""
    EXPIRED = "EXPIRED"
    """Ended: max_age passed before it started."""
    INVALID = "INVALID"
    """Ended: its function is gone."""

    @property
    def ended(self) -> bool:
        """Whether it is an end, which is final."""
        return self in _ENDS


_ENDS = frozenset(
    {
        InvocationState.SUCCEEDED,
        InvocationState.FAILED,
        InvocationState.TIMED_OUT,
        InvocationState.STOPPED,
        InvocationState.EXPIRED,
        InvocationState.INVALID,
    }
)


class WaitReason(_Name):
    """Why an invocation that is not running waits."""

    UNKNOWN = "UNKNOWN"
    SCHEDULED = "SCHEDULED"
    """It waits for its schedule time."""
    BACKOFF = "BACKOFF"
    """It waits for the end of a back-off, see ``wait_until``."""
    PAUSED = "PAUSED"
    """Its function is paused."""
    BACKLOG = "BACKLOG"
    """Others are before it."""
    NO_WORKER = "NO_WORKER"
    """No live worker serves its function."""
    COLD_START = "COLD_START"
    """An instance is starting for it."""


class AttemptOutcome(_Name):
    """How an attempt ended."""

    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    """A 2xx answer."""
    FAILED = "FAILED"
    """Any other answer, or none."""
    TIMED_OUT = "TIMED_OUT"
    """It ran past the attempt time-out."""
    LOST = "LOST"
    """Its worker was lost; whether it finished is unknown."""
    STOPPED = "STOPPED"
    """It was stopped."""


class EventType(_Name):
    """The kind of an entry in an invocation's history."""

    UNKNOWN = "UNKNOWN"
    ACCEPTED = "ACCEPTED"
    """The invocation was durably accepted."""
    ENQUEUED = "ENQUEUED"
    """It went to the broker, or went again after a failure."""
    DEQUEUED = "DEQUEUED"
    """A worker took it."""
    INSTANCE_STARTING = "INSTANCE_STARTING"
    """An instance starts for it."""
    RUNNING = "RUNNING"
    """An attempt started."""
    ATTEMPT_ENDED = "ATTEMPT_ENDED"
    """An attempt ended."""
    RETRYING = "RETRYING"
    """It waits for another attempt."""
    REQUEUED = "REQUEUED"
    """A worker gave it back unfinished."""
    STOP_REQUESTED = "STOP_REQUESTED"
    """A stop was asked for."""
    ENDED = "ENDED"
    """It ended."""
    LEASED = "LEASED"
    """It runs for so long that its worker took it out of the queue and answers for it from here on."""
    DELIVERY_FAILED = "DELIVERY_FAILED"
    """An attempt to deliver its outcome failed."""
    DELIVERED = "DELIVERED"
    """Its outcome was delivered."""
    DELIVERY_DEAD = "DELIVERY_DEAD"
    """A delivery of its outcome was given up."""


class DeliveryKind(_Name):
    """What asked for a delivery."""

    UNKNOWN = "UNKNOWN"
    CALLBACK = "CALLBACK"
    """The invocation's callback."""
    ON_SUCCESS = "ON_SUCCESS"
    """A destination on success."""
    ON_FAILURE = "ON_FAILURE"
    """A destination on failure."""


class DeliveryState(_Name):
    """A step in the life of a delivery."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    """Waits for its first or next attempt."""
    DELIVERING = "DELIVERING"
    """A worker delivers it."""
    DELIVERED = "DELIVERED"
    """Ended: the receiver took it."""
    DEAD = "DEAD"
    """Ended: given up."""


class Scope(_Name):
    """What an API key allows."""

    UNKNOWN = "UNKNOWN"
    INVOKE = "INVOKE"
    """To invoke functions, and to wait for and read what one has invoked oneself."""
    READ = "READ"
    """To read records, results, logs, functions and dead letters, and to watch."""
    OPERATE = "OPERATE"
    """To stop, run again, redrive and purge, and to pause, resume and scale functions."""
    DEPLOY = "DEPLOY"
    """To deploy and delete functions, and to manage secrets and signing keys."""
    ADMIN = "ADMIN"
    """To manage keys. Whoever may can give themselves every other scope."""


class DeadLetterKind(_Name):
    """What a dead letter is of."""

    UNKNOWN = "UNKNOWN"
    INVOCATION = "INVOCATION"
    """An asynchronous invocation that ended FAILED, TIMED_OUT, EXPIRED or INVALID."""
    DELIVERY = "DELIVERY"
    """A delivery that was given up."""


class LogStream(_Name):
    """Where a function wrote a line."""

    UNKNOWN = "UNKNOWN"
    STDOUT = "STDOUT"
    """Its standard output."""
    STDERR = "STDERR"
    """Its standard error."""
