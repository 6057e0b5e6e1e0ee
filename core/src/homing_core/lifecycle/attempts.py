"""What is known of an invocation's attempts: merged from what workers report of them, in whatever order it comes.

Attempts and history entries are the wire's own messages. They are values here: nothing changes one after it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from homing.v1 import invocation_pb2 as api
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import AttemptRecord, HistoryEntry

Key = tuple[int, int, int]
"""The token and the ordinal of an attempt: they order all attempts of an invocation."""


def key_of(attempt: AttemptRecord) -> Key:
    """Return what tells an attempt from all others of its invocation, and orders them."""
    return attempt.token.generation, attempt.token.redelivery_count, attempt.ordinal


def find(attempts: Sequence[AttemptRecord], wanted: AttemptRecord) -> AttemptRecord | None:
    """Return what is known of an attempt; None where it is not known."""
    return next((attempt for attempt in attempts if key_of(attempt) == key_of(wanted)), None)


def merge(
    known: Sequence[AttemptRecord], reported: Iterable[AttemptRecord], *, worker: str
) -> tuple[tuple[AttemptRecord, ...], tuple[HistoryEntry, ...]]:
    """Return all attempts in their order, and history entries for what is new in what a worker reported."""
    merged = {key_of(attempt): attempt for attempt in known}
    fresh: list[tuple[int, api.InvocationEventType.ValueType, AttemptRecord]] = []
    for attempt in reported:
        before = merged.get(key_of(attempt))
        if before is not None and before.end_us:
            continue
        if before is None:
            fresh.append((attempt.start_us, api.INVOCATION_EVENT_TYPE_RUNNING, attempt))
        if attempt.end_us:
            fresh.append((attempt.end_us, api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED, attempt))
        merged[key_of(attempt)] = attempt
    if not fresh:
        return tuple(known), ()
    keys = sorted(merged)
    entries = tuple(
        HistoryEntry(
            time_us=time_us,
            type=kind,
            attempt=_number(keys, attempt),
            worker=worker,
            detail=attempt.failure.reason if kind == api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED else "",
        )
        for time_us, kind, attempt in fresh
    )
    return tuple(merged[key] for key in keys), entries


def close_lost(attempts: Sequence[AttemptRecord], time_us: int) -> tuple[AttemptRecord, ...]:
    """Return the attempts with those that have no end marked as lost."""
    return tuple(attempt if attempt.end_us else _lost(attempt, time_us) for attempt in attempts)


def _number(keys: Sequence[Key], attempt: AttemptRecord) -> int:
    """Return the place of an attempt among all, even where earlier ones of its dispatch are not known yet."""
    token = key_of(attempt)[:2]
    return sum(1 for key in keys if key[:2] < token) + attempt.ordinal


def _lost(attempt: AttemptRecord, time_us: int) -> AttemptRecord:
    lost = AttemptRecord()
    lost.CopyFrom(attempt)
    lost.end_us = max(time_us, attempt.start_us)
    lost.outcome = api.ATTEMPT_OUTCOME_LOST
    lost.failure.reason = FailureReason.WORKER_LOST
    lost.failure.message = "the worker was not heard of again; whether the attempt finished is unknown"
    lost.failure.retryable = True
    return lost
