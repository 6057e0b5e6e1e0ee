"""Functions that are deleted, deployed again and invoked, again and again, many at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from homing import AsyncClient

_LONGEST_GAP = 0.03
"""Seconds between two steps, at most: about as long as it takes until every process has heard of the one before."""
PATIENCE = 120


async def redeploy(clients: Sequence[AsyncClient], *, names: int, cycles: int, seed: int) -> None:
    """Delete, deploy and invoke each of some functions so often, at random gaps and servers.

    Each definition answers with its number; what was accepted for one has to be answered by it.
    """
    rng = random.Random(seed)
    await asyncio.gather(*(_cycles(clients, f"again-{name}", cycles, rng) for name in range(names)))


async def _cycles(clients: Sequence[AsyncClient], name: str, cycles: int, rng: random.Random) -> None:
    await clients[0].functions.deploy(name=name, command=["echo", "first"])
    for number in range(cycles):
        await rng.choice(clients).functions.delete(name)
        await _gap(rng)
        await rng.choice(clients).functions.deploy(name=name, command=["echo", str(number)])
        await _gap(rng)
        caller = rng.choice(clients)
        later, now = await asyncio.gather(caller.invoke_async(name), caller.invoke(name))
        answers = [(await later.result(PATIENCE)).text.strip(), now.text.strip()]
        assert answers == [str(number)] * 2, f"{name}, cycle {number}"


async def _gap(rng: random.Random) -> None:
    # A part without any: at once is the hardest.
    await asyncio.sleep(max(0.0, rng.uniform(-_LONGEST_GAP, _LONGEST_GAP)))
