"""P11: results go from function to function, each once, and a cycle comes to its end."""

from __future__ import annotations

import asyncio
import json
import sys

from homing.v1 import invocation_pb2 as api
from homing.v1.dead_letter_service_pb2 import ListDeadLettersRequest
from homing_core.limits import MAX_DEPTH
from support.deliveries import outcomes, spec_to
from support.processes import Cluster

APPEND = """
import json, sys
envelope = json.load(sys.stdin)
print(json.dumps([*envelope["responsePayload"], sys.argv[1]]))
"""


def appending(name: str) -> list[str]:
    """Return a command that appends its name to the list that the function before it answered with."""
    return [sys.executable, "-c", APPEND, name]


async def test_p11_results_pass_from_a_to_b_to_c_though_server_and_worker_are_killed(cluster: Cluster) -> None:
    server = cluster.start_server()
    worker = cluster.start_worker()
    async with outcomes(cluster.target) as to:
        await to.deploy("c", appending("c"))
        await to.deploy("b", appending("b"), on_success=["function:c"])
        await to.deploy("a", ["cat"])
        spec = spec_to("a", on_success=["function:b"], data=b'["a"]')
        spec.payload.content_type = "application/json"
        ids = await to.invoke(*[spec] * 20)
        await to.caused_by(ids[0])
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(worker.kill)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(worker.start)

        for invocation_id in ids:
            second = await to.caused_by(invocation_id)
            third = await to.caused_by(second.id)
            assert [(each.function, each.depth) for each in (second, third)] == [("b", 1), ("c", 2)]
            assert json.loads(third.result.payload.data) == ["a", "b", "c"]
            (delivery,) = await to.delivered([invocation_id], count=1)
            assert (delivery.state, delivery.caused) == (api.DELIVERY_STATE_DELIVERED, second.id)


async def test_p11_a_cycle_stops_at_the_cap_with_a_record_that_says_so(cluster: Cluster) -> None:
    cluster.start_server()
    cluster.start_worker()
    async with outcomes(cluster.target) as to:
        await to.deploy("ping", ["cat"], on_success=["function:pong"])
        await to.deploy("pong", ["cat"], on_success=["function:ping"])
        (invocation_id,) = await to.invoke(spec_to("ping"))
        for _ in range(MAX_DEPTH):
            invocation_id = (await to.caused_by(invocation_id)).id
        (delivery,) = await to.delivered([invocation_id], count=1)
        dead = (await to.dead_letters.ListDeadLetters(ListDeadLettersRequest())).dead_letters

    assert delivery.state == api.DELIVERY_STATE_DEAD
    assert delivery.attempts[0].failure.reason == "DEPTH_EXCEEDED"
    assert f"has {MAX_DEPTH} already" in delivery.attempts[0].failure.message
    assert [(each.id, each.invocation_id, each.failure.reason) for each in dead] == [
        (delivery.id, invocation_id, "DEPTH_EXCEEDED")
    ]
