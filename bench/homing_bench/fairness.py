"""Whether a receiver that accepts and never answers delays the deliveries of others."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from homing import AsyncClient
from homing.v1 import invocation_service_pb2 as rpc
from support.deliveries import Outcomes, outcomes, spec_to
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.receivers import Peer, Receiver, Request, never, receiving
from support.schedules import running_function

_OTHERS = 4
_RATE = 200.0
"""Invocations a second: well below what the machine can do, so that what is measured is the wait and not the load."""
_ROUNDS = 3

Tell = Callable[[str], None]


async def measure(folder: Path, deliveries: int, tell: Tell) -> list[str]:
    """Make so many deliveries, with and without one that hangs among the receivers; return the lines of a table."""
    figures: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    with RabbitNode(folder / "rabbitmq") as node:
        for number in range(_ROUNDS):
            # One after the other, so that the machine's moods are the same for both.
            for name, rounds in figures.items():
                with Cluster(node.new_vhost(), folder / f"{name}-{number}") as cluster:
                    await asyncio.to_thread(cluster.start_server)
                    await asyncio.to_thread(cluster.start_worker)
                    waits = await _round(cluster, deliveries, hung=name == "with")
                p50, p99 = (1000 * waits[int(share * (len(waits) - 1))] for share in (0.5, 0.99))
                rounds.append((p50, p99))
                tell(f"round {number + 1}, {name} it: p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(waits)} deliveries")
    rows = {name: [statistics.median(values) for values in zip(*each, strict=True)] for name, each in figures.items()}
    ratio = rows["with"][1] / rows["without"][1]
    conditions = (
        f"{deliveries:,} invocations at {_RATE:.0f}/s; every second one delivers to one of {_OTHERS} receivers, the"
        " others to one that accepts and never answers, or nowhere. From the end of the invocation to the receiver,"
        f" median of {_ROUNDS} rounds:"
    )
    return [
        conditions,
        "",
        "| others' deliveries | p50 ms | p99 ms |",
        "| ------------------ | -----: | -----: |",
        *(f"| {name} the one that hangs | {p50:.1f} | {p99:.1f} |" for name, (p50, p99) in rows.items()),
        "",
        f"p99 with it is {ratio:.2f} of what it is without it.",
    ]


async def _round(cluster: Cluster, deliveries: int, *, hung: bool) -> list[float]:
    arrived: dict[str, float] = {}

    async def take(request: Request, peer: Peer) -> None:
        arrived.setdefault(request.headers["x-call-id"], time.time())
        await peer.answer(204)

    async with (
        running_function() as url,
        AsyncClient(cluster.target, timeout=120) as client,
        outcomes(cluster.target) as to,
        receiving(never) as silent,
        receiving(take) as one,
        receiving(take) as two,
        receiving(take) as three,
        receiving(take) as four,
    ):
        others = [one, two, three, four]
        await client.functions.deploy(name="nop", url=url, max_instances=8)
        await client.invoke("nop")
        ids = await _invoke(to, deliveries, others, silent.url if hung else "")
        for receiver in others:
            await receiver.until(lambda each: len(each.seen) >= deliveries // 2 // _OTHERS)
        # When they ended the records know.
        waits = []
        for invocation_id in ids[::2]:
            request = rpc.GetInvocationRequest(id=invocation_id)
            record = (await to.stub.GetInvocation(request)).invocation
            waits.append(arrived[invocation_id] - record.end_time.ToMicroseconds() / 1e6)
    return sorted(waits)


async def _invoke(to: Outcomes, count: int, others: list[Receiver], hung: str) -> list[str]:
    """Invoke at an even rate; return the ids in order."""
    begin = time.monotonic()
    calls: list[asyncio.Task[list[str]]] = []
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / _RATE - time.monotonic()))
        callback = hung if number % 2 else others[number // 2 % _OTHERS].url
        calls.append(asyncio.create_task(to.invoke(spec_to("nop", callback=callback))))
    return [invocation_id for (invocation_id,) in await asyncio.gather(*calls)]
