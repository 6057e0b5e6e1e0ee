"""A TCP proxy that can break connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

CHUNK = 64 * 1024


class TcpProxy:
    """Passes connections on to a target, and cuts or stalls them when told. Belongs to one event loop."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.accepted = 0
        """How many connections were made so far."""

    @property
    def port(self) -> int:
        """The port of the loopback that the proxy listens on."""
        assert self._server is not None, "the proxy was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)

    async def close(self) -> None:
        """Cut all connections and take no more."""
        if self._server is not None:
            self._server.close()
        await self.cut()
        if self._server is not None:
            await self._server.wait_closed()

    async def cut(self) -> int:
        """Reset all connections; return how many there were. New ones are taken."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return len(connections)

    def pause(self) -> None:
        """Pass nothing on, in either direction, and take connections without answering: the peers hear silence."""
        self._flowing.clear()

    def resume(self) -> None:
        """Go on, with all that was sent meanwhile."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        writers = [writer]
        try:
            await self._flowing.wait()
            target_reader, target_writer = await asyncio.open_connection(*self._target, limit=CHUNK)
            writers.append(target_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, target_writer))
                group.create_task(self._pump(target_reader, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # a peer is gone, or this one was cut
        finally:
            self._connections.discard(task)
            for each in writers:
                # Not a close in good order: what was not read yet is lost, as in a crash.
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
