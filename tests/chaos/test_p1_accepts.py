"""P1: what was accepted ends, wherever the server or the broker dies after that."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from homing import AsyncClient, InvocationState, RequestError
from support.ledger import Ledger
from support.processes import Cluster
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode

ACCEPTED = 200
CALLERS = 50


@pytest.mark.parametrize("fate", ["lost", "delivered"])
async def test_p1_server_killed_between_commit_and_publish(
    cluster: Cluster, rabbit_node: RabbitNode, fate: str, tmp_path: Path
) -> None:
    """The work messages are on their way to the broker, and not confirmed, when the server dies.

    They are lost with it, or the broker got them, and they run beside those that are published anew.
    """
    runs = tmp_path / "runs"

    async def nothing_at_the_broker() -> bool:
        queues = await asyncio.to_thread(rabbit_node.queues, cluster.broker_url, "messages")
        return int(queues["homing.work.v1.note"]["messages"]) == 0

    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = cluster.broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        server = await asyncio.to_thread(cluster.start_server, HOMING_BROKER_URL=through, HOMING_RESEND_AFTER="1")
        async with AsyncClient(cluster.target, timeout=60) as client:
            await client.functions.deploy(
                name="note", command=["sh", "-c", f"echo $Http_X_Call_Id >> {runs}"], max_instances=4
            )
            proxy.pause(answers_only=fate == "delivered")
            ledger = Ledger()
            ids = await ledger.accept(client, "note", ACCEPTED, at_once=64)
            if fate == "delivered":
                while await nothing_at_the_broker():
                    assert server.running
            await asyncio.to_thread(server.kill)
        await proxy.cut()
        proxy.resume()

        async with AsyncClient(cluster.target, timeout=60) as client:
            await asyncio.to_thread(server.start)
            records = [await client.get(each) for each in ids]
            assert Counter(record.state for record in records) == {InvocationState.ENQUEUED: ACCEPTED}
            await asyncio.to_thread(server.wait_for_log, "unconfirmed_work_taken_back")
            async with ledger.watching(client):
                await asyncio.to_thread(cluster.start_worker)
                await ledger.close(client, "note")

    assert ledger.states() == {InvocationState.SUCCEEDED: ACCEPTED + 1}
    executed = Counter(runs.read_text().split())
    assert set(executed) == set(ledger.accepted)
    # What the broker got and could not confirm may run twice: a worker that has both in hand runs one. It ends once.
    assert fate == "delivered" or executed.total() == ACCEPTED + 1


async def test_p1_server_killed_right_after_an_accept_answer(cluster: Cluster) -> None:
    server = await asyncio.to_thread(cluster.start_server, HOMING_RESEND_AFTER="1")
    await asyncio.to_thread(cluster.start_worker)
    ledger = Ledger()
    known: list[str] = []
    unknown: list[str | None] = []
    async with AsyncClient(cluster.target, timeout=60) as client:
        await client.functions.deploy(name="echo", command=["cat"])
        async with ledger.watching(client):
            for answers in (1, 40):
                # The client is connected again when this is answered.
                await ledger.accept(client, "echo")
                due = len(ledger.accepted) + answers

                def answered(book: Ledger, due: int = due) -> bool:
                    return len(book.accepted) >= due

                async def accept() -> None:
                    # One after the other until one breaks off: so there is one under way whenever the server dies.
                    while True:
                        try:
                            # No time to try again: what counts is what was answered before the server died.
                            handle = await client.invoke_async("echo", "once", timeout=3.0)
                        except RequestError as error:
                            unknown.append(error.request_id)
                            return
                        known.append(handle.id)
                        await ledger.note(handle.id, "echo")

                calls = [asyncio.create_task(accept()) for _ in range(CALLERS)]
                await ledger.until(answered)
                await asyncio.to_thread(server.kill)
                await asyncio.gather(*calls)
                await asyncio.to_thread(server.start)
            assert len(unknown) == 2 * CALLERS
            # Those without an answer were accepted or not: the same request id finds out.
            for request_id in unknown:
                handle = await client.invoke_async("echo", "once", request_id=request_id)
                await ledger.note(handle.id, "echo")
            await ledger.close(client, "echo")

    assert len(ledger.accepted) == len(known) + len(unknown) + 3
    assert ledger.states() == {InvocationState.SUCCEEDED: len(ledger.accepted)}


async def test_p1_accepts_go_on_while_the_broker_is_away(cluster: Cluster, rabbit_node: RabbitNode) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    ledger = Ledger()
    async with AsyncClient(cluster.target, timeout=60) as client:
        await client.functions.deploy(name="echo", command=["cat"])
        async with ledger.watching(client):
            await ledger.accept(client, "echo", 20)
            await ledger.until_ended()

            await asyncio.to_thread(rabbit_node.sync)
            await asyncio.to_thread(rabbit_node.kill)
            before = time.monotonic()
            ids = await ledger.accept(client, "echo", 50)
            assert time.monotonic() - before < 10, "an accept waited for the broker"
            waiting = await client.get(ids[0])
            assert (waiting.state, waiting.wait_reason) != (InvocationState.SUCCEEDED, None)
            await asyncio.to_thread(server.kill)

            await asyncio.to_thread(rabbit_node.start)
            await asyncio.to_thread(server.start)
            await ledger.close(client, "echo")

    assert ledger.states() == {InvocationState.SUCCEEDED: 71}
