"""Many scheduled invocations of which some become due one after the other, while others are invoked at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from aiohttp import web

from homing import AsyncClient, AsyncInvocationHandle, InvocationRequest

_BATCH = 1000
_PATIENCE = 120.0


@contextlib.asynccontextmanager
async def running_function() -> AsyncIterator[str]:
    """Serve a function that does nothing, and yield its URL: calls of it cost little beside what starts them."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def accept_waiting(client: AsyncClient, function: str, count: int) -> None:
    """Have so many invocations accepted that start in the next weeks, the first of them in an hour."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        times = [soon + timedelta(days=28) * (number / count) for number in numbers]
        _handles(
            await client.invoke_batch([InvocationRequest(function=function, schedule_time=when) for when in times])
        )


async def lateness(
    client: AsyncClient, function: str, *, count: int, seconds: float, beside: float
) -> tuple[list[float], int]:
    """Let invocations become due evenly over some seconds.

    :param beside: How many are invoked at once in each second meanwhile.
    :return: How many seconds after its time each started, in ascending order, and how many others ran meanwhile.
    """
    # They are accepted before the first is due.
    begin = datetime.now(UTC) + timedelta(seconds=1 + count / 1000)
    times = [begin + timedelta(seconds=seconds) * (number / count) for number in range(count)]
    requests = [InvocationRequest(function=function, schedule_time=when) for when in times]
    handles: list[AsyncInvocationHandle] = []
    for start in range(0, count, _BATCH):
        handles += _handles(await client.invoke_batch(requests[start : start + _BATCH]))
    others: list[AsyncInvocationHandle] = []
    while datetime.now(UTC) < times[-1]:
        others.append(await client.invoke_async(function))
        await asyncio.sleep(1 / beside)
    records = [await handle.wait(_PATIENCE) for handle in handles]
    for other in others:
        await other.result(_PATIENCE)
    late = []
    for record, when in zip(records, times, strict=True):
        assert record.start_time is not None, record
        late.append((record.start_time - when).total_seconds())
    return sorted(late), len(others)


def _handles(outcomes: Sequence[object]) -> list[AsyncInvocationHandle]:
    handles = [outcome for outcome in outcomes if isinstance(outcome, AsyncInvocationHandle)]
    assert len(handles) == len(outcomes), [outcome for outcome in outcomes if outcome not in handles][:3]
    return handles
