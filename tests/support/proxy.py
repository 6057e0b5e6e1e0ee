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
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter | None] = {}
        """What passes a connection on, and its way to the target."""
        self._stranded: set[asyncio.Task[None]] = set()
        self._to_target, self._from_target = asyncio.Event(), asyncio.Event()
        self.resume()
        self.accepted = 0
        """How many connections were made so far."""

    @property
    def port(self) -> int:
        """The port of the loopback that the proxy listens on."""
        assert self._server is not None, "the proxy was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

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

    def strand(self) -> int:
        """Reset the targets' ends of all connections and leave the others open and silent; return how many there were.

        So the target knows that its peers are gone, and they do not.
        """
        stranded = [(connection, writer) for connection, writer in self._connections.items() if writer is not None]
        for connection, writer in stranded:
            self._stranded.add(connection)
            writer.transport.abort()
        return len(stranded)

    def pause(self, *, answers_only: bool = False) -> None:
        """Pass nothing on, in either direction, and take connections without answering: the peers hear silence.

        With `answers_only` what is sent to the target still gets there.
        """
        self._from_target.clear()
        if not answers_only:
            self._to_target.clear()

    def resume(self) -> None:
        """Go on, with all that was sent meanwhile."""
        self._to_target.set()
        self._from_target.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        self.accepted += 1
        writers = [writer]
        try:
            await self._to_target.wait()
            target_reader, target_writer = await asyncio.open_connection(*self._target, limit=CHUNK)
            writers.append(target_writer)
            self._connections[task] = target_writer
            with contextlib.suppress(ExceptionGroup):  # a peer is gone
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, target_writer, self._to_target))
                    group.create_task(self._pump(target_reader, writer, self._from_target, task))
            if task in self._stranded:
                await asyncio.Event().wait()
        except (OSError, asyncio.CancelledError):
            pass  # the target is not there, or this one was cut
        finally:
            del self._connections[task]
            self._stranded.discard(task)
            for each in writers:
                # Not a close in good order: what was not read yet is lost, as in a crash.
                each.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
        connection: asyncio.Task[None] | None = None,
    ) -> None:
        while data := await reader.read(CHUNK):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
        if connection not in self._stranded:
            with contextlib.suppress(OSError):
                writer.write_eof()
