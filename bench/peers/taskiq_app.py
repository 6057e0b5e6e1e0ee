"""taskiq on RabbitMQ, with its defaults that lose nothing: confirmed publishing, quorum queue, late acknowledgement."""

from __future__ import annotations

import os

import aiohttp
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker

_url = os.environ["BENCH_URL"]

broker = AioPikaBroker(os.environ["BENCH_BROKER"], qos=64)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_session(state: TaskiqState) -> None:
    """Make the session that all tasks share."""
    state.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_session(state: TaskiqState) -> None:
    """Close it."""
    await state.session.close()


@broker.task
async def call(payload: str) -> None:
    """Call the function."""
    async with broker.state.session.post(_url, data=payload, headers={"Content-Type": "text/plain"}) as answer:
        await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}")
