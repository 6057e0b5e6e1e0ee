"""A generator streams its items as they come, and tells how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from homing_function import Context, function


@dataclass
class Order:
    """From where to count, and how fast."""

    start: int = 10
    seconds: float = 0.1


@function(concurrency=50)
async def countdown(order: Order, ctx: Context) -> AsyncIterator[str]:
    """Count down, a line at a time."""
    for number in range(order.start, 0, -1):
        yield f"{number}\n"
        ctx.progress(100 * (1 - (number - 1) / order.start), f"{number - 1} to go")
        await asyncio.sleep(order.seconds)
    yield "lift-off\n"
