"""P7: one request id is one invocation, whoever asks, as often and across restarts."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from homing import AlreadyExistsError, AsyncClient, InvocationState
from support.gauges import Gauges, gauges_when
from support.ledger import Ledger
from support.processes import Cluster

CLIENTS = 20


async def test_p7_twenty_clients_at_once_make_one_invocation_across_restarts(cluster: Cluster) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(cluster.target, timeout=60)) for _ in range(CLIENTS)]
        first = clients[0]
        await first.functions.deploy(name="echo", command=["cat"])
        await stack.enter_async_context(ledger.watching(first))

        async def all_at_once(request_id: str, payload: str) -> Counter[tuple[str, bool]]:
            handles = await asyncio.gather(
                *(each.invoke_async("echo", payload, request_id=request_id) for each in clients)
            )
            return Counter((handle.id, handle.duplicate) for handle in handles)

        answers = await all_at_once("order-1", "one")
        (invocation_id,) = {each for each, _ in answers}
        assert answers == {(invocation_id, False): 1, (invocation_id, True): CLIENTS - 1}
        await ledger.note(invocation_id, "echo")
        await ledger.until_ended()

        with pytest.raises(AlreadyExistsError) as conflict:
            await first.invoke_async("echo", "two", request_id="order-1")
        assert conflict.value.reason == "REQUEST_ID_REUSED"

        await asyncio.to_thread(server.kill)
        # These find the server gone, and the one that is started while they try again.
        trying = asyncio.create_task(all_at_once("order-1", "one"))
        trying_new = asyncio.create_task(all_at_once("order-2", "two"))
        await asyncio.to_thread(server.start)
        assert await trying == {(invocation_id, True): CLIENTS}
        answers = await trying_new
        (second_id,) = {each for each, _ in answers}
        assert sum(count for (_, duplicate), count in answers.items() if not duplicate) <= 1
        await ledger.note(second_id, "echo")
        with pytest.raises(AlreadyExistsError):
            await first.invoke_async("echo", "one", request_id="order-2")
        await ledger.close(first, "echo")

    assert {each: event.result.text for each, event in ledger.ends.items() if each in {invocation_id, second_id}} == {
        invocation_id: "one",
        second_id: "two",
    }
    assert ledger.states() == {InvocationState.SUCCEEDED: 3}

    def counted(gauges: Gauges) -> bool:
        return gauges.records == {"SUCCEEDED": 3}

    await gauges_when(server, counted)
