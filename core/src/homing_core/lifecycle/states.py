"""The states of an invocation: which are final, and which may follow which."""

from __future__ import annotations

import enum
from typing import Final

from homing.v1 import invocation_pb2 as api


class State(enum.IntEnum):
    """A step in the life of an invocation; the numbers are those of ``homing.v1.InvocationState``."""

    SCHEDULED = api.INVOCATION_STATE_SCHEDULED
    ENQUEUED = api.INVOCATION_STATE_ENQUEUED
    DEQUEUED = api.INVOCATION_STATE_DEQUEUED
    RUNNING = api.INVOCATION_STATE_RUNNING
    RETRYING = api.INVOCATION_STATE_RETRYING
    STOPPING = api.INVOCATION_STATE_STOPPING
    SUCCEEDED = api.INVOCATION_STATE_SUCCEEDED
    FAILED = api.INVOCATION_STATE_FAILED
    TIMED_OUT = api.INVOCATION_STATE_TIMED_OUT
    STOPPED = api.INVOCATION_STATE_STOPPED
    EXPIRED = api.INVOCATION_STATE_EXPIRED
    INVALID = api.INVOCATION_STATE_INVALID


ENDS: Final = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED, State.EXPIRED, State.INVALID})
"""The states that are final."""

ENDS_OF_RUNS: Final = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED})
"""The ends that an invocation may have which has started."""

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.SCHEDULED: frozenset({State.ENQUEUED, State.STOPPED, State.EXPIRED, State.INVALID}),
    State.ENQUEUED: frozenset(
        {State.DEQUEUED, State.RUNNING, State.RETRYING, State.STOPPING, State.EXPIRED, State.INVALID} | ENDS_OF_RUNS
    ),
    State.DEQUEUED: frozenset(
        {State.ENQUEUED, State.RUNNING, State.RETRYING, State.STOPPING, State.EXPIRED, State.INVALID} | ENDS_OF_RUNS
    ),
    State.RUNNING: frozenset({State.ENQUEUED, State.DEQUEUED, State.RETRYING, State.STOPPING} | ENDS_OF_RUNS),
    State.RETRYING: frozenset({State.ENQUEUED, State.DEQUEUED, State.RUNNING, State.STOPPING} | ENDS_OF_RUNS),
    State.STOPPING: ENDS_OF_RUNS,
    **dict.fromkeys(ENDS, frozenset[State]()),
}
"""Which state may follow which. Events that were overtaken by later ones make the leaps, ENQUEUED to SUCCEEDED say."""


DEAD_STATES: Final = frozenset({State.FAILED, State.TIMED_OUT, State.EXPIRED, State.INVALID})
"""What ends so came to nothing; what was stopped was meant to."""
