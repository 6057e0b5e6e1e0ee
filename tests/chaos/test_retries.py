"""Failing functions: what is tried again and when, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import pairwise

import pytest

from homing import (
    AsyncClient,
    AttemptOutcome,
    FunctionError,
    FunctionTimeoutError,
    Invocation,
    InvocationState,
    RetryPolicy,
)
from support.docker import FunctionImages
from support.ledger import PATIENCE
from support.processes import Cluster

FAST = RetryPolicy(max_attempts=3, initial_backoff=0.2)


def pauses(record: Invocation) -> list[timedelta]:
    """Return how long it was from the end of each attempt to the start of the next."""
    times = [(attempt.start_time, attempt.end_time) for attempt in record.attempts]
    assert all(start is not None and end is not None and start <= end for start, end in times)
    return [start - end for (_, end), (start, _) in pairwise(times) if start is not None and end is not None]


async def test_failing_functions_are_tried_again_as_their_policy_says(
    docker_cluster: Cluster, function_images: FunctionImages
) -> None:
    await asyncio.to_thread(docker_cluster.start_server)
    await asyncio.to_thread(docker_cluster.start_worker)
    async with AsyncClient(docker_cluster.target, timeout=60) as client:
        await client.functions.deploy(
            name="flaky", image=function_images.flaky, concurrency=16, max_instances=1, retry_policy=FAST
        )

        async def run(attempt_timeout: float | None = None, **order: object) -> Invocation:
            handle = await client.invoke_async("flaky", order, attempt_timeout=attempt_timeout)
            return await handle.wait(PATIENCE)

        (
            recovers,
            fails,
            hangs,
            soon,
            later,
            final,
            not_retried,
        ) = await asyncio.gather(
            run(fail=2, status=503),
            run(fail=-1, status=500),
            run(attempt_timeout=1.0, hang=True),
            run(fail=1, status=429, retry_after="1"),
            run(fail=1, status=503, retry_after="3"),
            run(fail=-1, status=503, final=True),
            run(fail=-1, status=404),
        )

        assert recovers.state is InvocationState.SUCCEEDED
        assert [attempt.status_code for attempt in recovers.attempts] == [503, 503, 200]
        assert [attempt.number for attempt in recovers.attempts] == [1, 2, 3]
        *failed, last = recovers.attempts
        assert {attempt.delay_reason for attempt in failed} == {"BACKOFF"}
        assert (last.next_delay, last.delay_reason, last.failure) == (None, "", None)
        for attempt, pause, bound in zip(failed, pauses(recovers), (0.2, 0.4), strict=True):
            assert attempt.next_delay is not None
            assert attempt.next_delay <= timedelta(seconds=bound)
            assert pause >= attempt.next_delay - timedelta(milliseconds=10)

        assert fails.state is InvocationState.FAILED
        assert [attempt.status_code for attempt in fails.attempts] == [500, 500, 500]
        assert fails.result is not None
        assert (fails.result.status_code, json.loads(fails.result.text)["attempt"]) == (500, 3)
        assert fails.failure is not None
        assert fails.failure.reason == "HTTP_STATUS"
        with pytest.raises(FunctionError):
            await client.handle(fails.id).result()

        assert hangs.state is InvocationState.TIMED_OUT
        assert [attempt.outcome for attempt in hangs.attempts] == [AttemptOutcome.TIMED_OUT] * 3
        assert hangs.failure is not None
        assert hangs.failure.reason == "TIMEOUT"
        with pytest.raises(FunctionTimeoutError):
            await client.handle(hangs.id).result()

        for record, seconds in ((soon, 1), (later, 3)):
            assert record.state is InvocationState.SUCCEEDED
            first, _ = record.attempts
            assert (first.delay_reason, first.next_delay) == ("RETRY_AFTER", timedelta(seconds=seconds))
            (pause,) = pauses(record)
            assert pause >= timedelta(seconds=seconds) - timedelta(milliseconds=10)

        for record, status in ((final, 503), (not_retried, 404)):
            assert record.state is InvocationState.FAILED
            assert [attempt.status_code for attempt in record.attempts] == [status]
            assert record.attempts[0].next_delay is None
