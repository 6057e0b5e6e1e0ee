"""The life cycle as data and pure functions."""

from homing_core.lifecycle.invocation import (
    ENDS,
    ENDS_OF_RUNS,
    TRANSITIONS,
    Custody,
    Record,
    Refusal,
    State,
    Token,
    accepted,
    ended,
    handed_over,
    lease_ended,
    reported,
    stop_requested,
    stopped,
)

__all__ = [
    "ENDS",
    "ENDS_OF_RUNS",
    "TRANSITIONS",
    "Custody",
    "Record",
    "Refusal",
    "State",
    "Token",
    "accepted",
    "ended",
    "handed_over",
    "lease_ended",
    "reported",
    "stop_requested",
    "stopped",
]
