"""A worker inside the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from homing_core.broker.rabbitmq import RabbitBroker
from homing_core.settings import LOOPBACK
from homing_worker.app import Worker
from homing_worker.settings import WorkerSettings
from support.fake_server import FakeServer


@contextlib.asynccontextmanager
async def running_worker(server: FakeServer, url: str, data_dir: Path, **settings: Any) -> AsyncIterator[Worker]:
    """Run a worker, from the time at which it is ready until the end of the block; it drains then."""
    values: dict[str, Any] = {"runtime": "process", "worker_name": "w", "drain_timeout": 10.0}
    values |= {"command_users": "", "callback_networks": LOOPBACK, "function_networks": LOOPBACK} | settings
    worker = Worker(
        WorkerSettings(broker_url=url, data_dir=data_dir, **values), lambda name: RabbitBroker(url, name=name)
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        await asyncio.wait({running, asyncio.create_task(worker.ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        yield worker
    finally:
        stop.set()
        await running
