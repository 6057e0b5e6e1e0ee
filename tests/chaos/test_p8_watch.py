"""P8: a watch sees every result once, whatever is cut, killed or restarted, itself too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from homing import AsyncClient
from support.ledger import Ledger, until
from support.processes import Cluster
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode

WATCH = """
import sys
from homing import Client

with Client(sys.argv[1]) as client, client.watch_results(resume_token=sys.argv[2] or None) as events:
    print("watching", events.resume_token, flush=True)
    for event in events:
        print(event.invocation.id, event.resume_token, flush=True)
"""
RESULTS = 600


class WatchingProcess:
    """A client in a process of its own that prints what it sees, with the token to resume from after it."""

    def __init__(self, ledger: Ledger, process: asyncio.subprocess.Process) -> None:
        self.token = ""
        """The last one that was printed: what a client would have saved."""
        self._ledger = ledger
        self._process = process
        self._subscribed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def watching(cls, ledger: Ledger, target: str, resume_token: str = "") -> AsyncIterator[WatchingProcess]:
        """Watch until the end of the block, at which it is killed in the middle of what it does."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOMING_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WATCH, target, resume_token, stdout=asyncio.subprocess.PIPE, env=environment
        )
        watching = cls(ledger, process)
        try:
            async with asyncio.timeout(60):
                await watching._subscribed.wait()
            yield watching
        finally:
            process.kill()
            # What it printed before it died has been seen.
            await watching._reading
            await process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            what, self.token = line.decode().split()
            if what == "watching":
                self._subscribed.set()
            else:
                await self._ledger.see(what)


async def test_p8_every_result_is_seen_once_through_cuts_kills_and_restarts(
    cluster: Cluster, rabbit_node: RabbitNode
) -> None:
    server = await asyncio.to_thread(cluster.start_server, HOMING_RESEND_AFTER="3")
    await asyncio.to_thread(cluster.start_worker)
    host, port = cluster.target.rsplit(":", 1)
    ledger = Ledger()
    async with TcpProxy(host, int(port)) as proxy, AsyncClient(cluster.target, timeout=120) as client:
        watched = f"127.0.0.1:{proxy.port}"
        await client.functions.deploy(name="echo", command=["cat"], max_instances=4)

        cuts_made = asyncio.Event()

        async def load() -> None:
            # However many come while something restarts, there are more for what is cut after that.
            while len(ledger.accepted) < RESULTS or not cuts_made.is_set():
                await ledger.until(lambda book: len(book.accepted) - len(book.seen) < 100)
                await ledger.accept(client, "echo", 20)

        async def cut_after(results: int) -> None:
            seen = len(ledger.seen)
            await ledger.until(lambda book: len(book.seen) >= seen + results)
            # Those may be what it had printed before the last cut, and it connects only now.
            await until(lambda: proxy.connections > 0)
            await proxy.cut()

        async with WatchingProcess.watching(ledger, watched) as first:
            loading = asyncio.create_task(load())
            for _ in range(5):
                await cut_after(30)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await cut_after(30)
        # Results come while nobody watches.
        await ledger.accept(client, "echo", 20)
        async with WatchingProcess.watching(ledger, watched, first.token) as second:
            await cut_after(30)
            await asyncio.to_thread(rabbit_node.sync)
            await asyncio.to_thread(rabbit_node.kill)
            await asyncio.to_thread(rabbit_node.start)
            await cut_after(30)
        async with WatchingProcess.watching(ledger, watched, second.token):
            await cut_after(30)
            await cut_after(30)
            cuts_made.set()
            await loading
            await ledger.close(client, "echo")

    assert len(ledger.accepted) > RESULTS
