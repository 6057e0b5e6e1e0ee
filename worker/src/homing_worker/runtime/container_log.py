"""Follows what a container writes and gives it to the invocations that the container served at the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import Final

import aiohttp

from homing.v1.log_service_pb2 import LogStream
from homing_core.clock import now_us
from homing_core.limits import KIB
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.instance_log import InstanceLog

_STREAMS: Final = {1: LogStream.LOG_STREAM_STDOUT, 2: LogStream.LOG_STREAM_STDERR}
_FRAME_HEADER_BYTES: Final = 8
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)
_RECONNECT_INTERVAL: Final = 1.0
"""Seconds."""
_FLOOD_BYTES: Final = 16 * KIB
"""A read of so much is part of a flood."""
_FLOOD_PAUSE_FACTOR: Final = 9
"""After such a read nothing is read for so many times the time that it took: a flood costs a tenth of the worker.
What is behind by then the engine drops, without ever making the function wait."""


class ContainerLog:
    """What one container writes."""

    def __init__(
        self, engine: aiohttp.ClientSession, container_id: str, *, turn: asyncio.Lock, same_clock: bool
    ) -> None:
        """Prepare to follow a container.

        :param engine: A session whose base URL is the engine's.
        :param turn: Held by the one log of all that is in the middle of a flood.
        :param same_clock: Whether the engine's time stamps can be held against this process's clock.
        """
        self._engine = engine
        self._id = container_id
        self._turn = turn
        self._same_clock = same_clock
        self._lines = InstanceLog()
        self._following: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Follow the container from now on."""
        self._following = asyncio.create_task(self._follow())

    def serving(self, log: InvocationLog | None) -> AbstractContextManager[None]:
        """Note that the container serves an invocation, perhaps one without a log, while the context is open."""
        return self._lines.serving(log)

    async def close(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._lines.close()

    async def _follow(self) -> None:
        while True:
            # Where the engine is away, or the container is gone and this is about to be closed, it is asked again.
            with suppress(aiohttp.ClientError, OSError):
                await self._read_stream()
            await asyncio.sleep(_RECONNECT_INTERVAL)

    async def _read_stream(self) -> None:
        """Read what the container writes from now on, until the engine ends the stream."""
        frames = Frames()
        async with self._engine.get(
            f"/containers/{self._id}/logs",
            params={"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": f"{time.time():.6f}"},
            timeout=_NO_TIMEOUT,
        ) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                if len(data) < _FLOOD_BYTES:
                    self._take(frames.feed(data))
                    continue
                async with self._turn:
                    begun = time.perf_counter()
                    self._take(frames.feed(data))
                    await asyncio.sleep(_FLOOD_PAUSE_FACTOR * (time.perf_counter() - begun))

    def _take(self, frames: Iterator[tuple[int, bytes]]) -> None:
        for number, written in frames:
            if number not in _STREAMS:
                continue
            stamp, _, text = written.partition(b" ")
            time_us = _microseconds(stamp) if self._same_clock else now_us()
            self._lines.feed(_STREAMS[number], text, time_us)


class Frames:
    """Takes the engine's multiplexed stream apart."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield stream number and content of the frames that these bytes complete."""
        data = self._begun + data
        start = 0
        while len(data) >= start + _FRAME_HEADER_BYTES:
            end = start + _FRAME_HEADER_BYTES + int.from_bytes(data[start + 4 : start + _FRAME_HEADER_BYTES], "big")
            if len(data) < end:
                break
            yield data[start], data[start + _FRAME_HEADER_BYTES : end]
            start = end
        self._begun = data[start:]


def _microseconds(stamp: bytes) -> int:
    """Return the time of a stamp like ``2026-11-22T11:37:19.343165683Z``; now where it is none."""
    try:
        return round(datetime.fromisoformat(stamp.decode()).timestamp() * 1e6)
    except ValueError:
        return now_us()
