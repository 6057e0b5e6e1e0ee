"""Hands tasks to taskiq from some callers at a time and prints how many seconds that took."""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop
from taskiq_app import broker, call


async def _main() -> None:
    tasks, callers = int(sys.argv[1]), int(sys.argv[2])
    payload = "x" * 256
    await broker.startup()
    left = iter(range(tasks))

    async def caller() -> None:
        for _ in left:
            await call.kiq(payload)

    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    print(tasks, time.monotonic() - start)
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(_main())
