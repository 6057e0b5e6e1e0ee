"""P10: a function that does not start, lies, floods, hangs or dies harms no other function."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from homing import AsyncClient, InvocationState, RetryPolicy
from support.docker import FunctionImages
from support.ledger import Ledger
from support.processes import Cluster

EACH = 5
NEIGHBOURS = 200
NOT_BLOCKED = timedelta(seconds=30)

ONCE = RetryPolicy(max_attempts=1)


async def test_p10_neighbours_of_functions_that_misbehave_notice_nothing(
    docker_cluster: Cluster, function_images: FunctionImages
) -> None:
    flaky = function_images.flaky
    misbehaving = {
        "hangs": (InvocationState.TIMED_OUT, "TIMEOUT", {"hang": True}),
        "garbage": (InvocationState.FAILED, "BAD_RESPONSE", {"garbage": True}),
        "floods": (InvocationState.FAILED, "RESULT_TOO_LARGE", {"flood": 5 * 1024**3}),
        "endless": (InvocationState.FAILED, "RESULT_TOO_LARGE", {"endless": True}),
        "lies": (InvocationState.FAILED, "CONNECTION_LOST", {"lie": 1000}),
        "dies": (InvocationState.FAILED, "CONNECTION_LOST", {"die": True}),
        "exits": (InvocationState.FAILED, "START_FAILED", {}),
        "never": (InvocationState.FAILED, "START_FAILED", {}),
        "missing": (InvocationState.FAILED, "IMAGE_NOT_FOUND", {}),
    }
    await asyncio.to_thread(docker_cluster.start_server)
    await asyncio.to_thread(docker_cluster.start_worker, HOMING_START_TIMEOUT="20")
    ledger = Ledger()
    async with AsyncClient(docker_cluster.target, timeout=60) as client:
        for name in misbehaving:
            await client.functions.deploy(
                name=name,
                # A registry that is not there.
                image="127.0.0.1:9/homing/missing:1" if name == "missing" else flaky,
                env={"FLAKY_START": {"exits": "exit", "never": "never"}.get(name, "")},
                max_instances=1,
                attempt_timeout=2.0 if name == "hangs" else 60.0,
                retry_policy=ONCE,
            )
        await client.functions.deploy(name="plain", image=function_images.plain, concurrency=4, max_instances=2)
        async with ledger.watching(client):
            for _ in range(EACH):
                for name, (_, _, order) in misbehaving.items():
                    handle = await client.invoke_async(name, order)
                    await ledger.note(handle.id, name)
            # In parts, so that they come while the others start, fail, hang and are replaced.
            for _ in range(10):
                await ledger.until_ended(await ledger.accept(client, "plain", NEIGHBOURS // 10))
            await ledger.close(client, "plain")

    assert ledger.states("plain") == {InvocationState.SUCCEEDED: NEIGHBOURS + 1}
    for event in ledger.ends.values():
        record = event.invocation
        assert record.create_time is not None
        assert record.end_time is not None
        if record.function == "plain":
            assert record.end_time - record.create_time < NOT_BLOCKED
        else:
            state, reason, _ = misbehaving[record.function]
            assert record.failure is not None
            assert (record.function, record.state, record.failure.reason) == (record.function, state, reason)
            assert record.failure.message
