"""A storm: users and fate do random things to a running system. When it is over, everything must add up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from typing import Final

from homing import (
    AlreadyExistsError,
    AsyncClient,
    AttemptOutcome,
    DeliveryState,
    Invocation,
    InvocationEndedError,
    InvocationState,
    RetryPolicy,
    WatchEvent,
)
from support.gauges import gauges_after, settled_gauges
from support.ledger import Ledger
from support.processes import Cluster, HomingProcess
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode
from support.receivers import Behaviour, Peer, Receiver, Request, receiving

DEEDS: Final[Mapping[str, int]] = {
    "accept": 12,
    "repeat": 4,
    "stop": 16,
    "rerun": 6,
    "pause": 2,
    "cut": 3,
    "kill_worker": 3,
    "kill_server": 2,
}
"""How often each thing is done in one storm."""

DELAYS: Final = ",".join(["0.1", "0.5", "2.5"] * 8)
"""When deliveries are made again: at the worker, or by way of the store. So often that each arrives."""

LONGEST_PAUSE: Final = 0.4
"""Seconds between two deeds, at most."""

WORK: Final = (
    'read seconds fails; echo "$Http_X_Call_Id $$" >> "$0"; sleep $seconds;'
    ' [ "$Http_X_Homing_Attempt" -gt "$fails" ] && echo $$'
)
"""Notes who starts, takes its time, fails as many attempts as it is told, and answers who it was."""

FUNCTIONS: Final = {"quick": RetryPolicy(initial_backoff=0.2), "patient": RetryPolicy(initial_backoff=3.0)}
"""What is invoked, with its retries: those of the one wait at the worker, many of the other in the store."""


def moody() -> Behaviour:
    """Return a receiver that fails one time in three, and cuts one connection in nine."""
    times = itertools.count()

    async def behaviour(_: Request, peer: Peer) -> None:
        number = next(times)
        if number % 9 == 8:
            peer.drop()
        else:
            await peer.answer(503 if number % 3 == 2 else 204)

    return behaviour


class StormLedger(Ledger):
    """A ledger that knows too how often each invocation had started when its stop was told."""

    def __init__(self, starts: Path) -> None:
        super().__init__()
        self.starts_when_stopped: dict[str, int] = {}
        self._starts = starts
        starts.touch()

    def starts(self) -> dict[str, list[str]]:
        """Return the process ids of the starts of each invocation."""
        starts: dict[str, list[str]] = defaultdict(list)
        for line in self._starts.read_text().splitlines():
            invocation_id, process = line.split()
            starts[invocation_id].append(process)
        return starts

    async def tell(self, event: WatchEvent) -> None:
        """Book an end that a watch told of."""
        if event.invocation.state is InvocationState.STOPPED:
            self.note_stopped(event.invocation.id)
        await super().tell(event)

    def note_stopped(self, invocation_id: str) -> None:
        """Book that an invocation was said to be STOPPED: from now on it must not start."""
        self.starts_when_stopped.setdefault(invocation_id, len(self.starts()[invocation_id]))


class Storm:
    """What is done to a cluster, and what is known of it. Its workers reach the broker through a proxy."""

    def __init__(
        self, cluster: Cluster, proxy: TcpProxy, client: AsyncClient, ledger: StormLedger, receiver: Receiver
    ) -> None:
        self.client = client
        self.ledger = ledger
        self._receiver = receiver
        self._cluster = cluster
        self._proxy = proxy
        self._requests: dict[str, tuple[str, str, str]] = {}
        """Function, payload and invocation by request id."""
        self._origins: dict[str, str] = {}
        """What each re-run ran again."""
        self._locks: dict[HomingProcess, asyncio.Lock] = defaultdict(asyncio.Lock)

    @classmethod
    @contextlib.asynccontextmanager
    async def over(cls, cluster: Cluster, node: RabbitNode, starts: Path) -> AsyncIterator[Storm]:
        """Start a server and two workers of a cluster, deploy the functions, and watch.

        :param starts: The file in which each start of a function is noted.
        """
        ledger = StormLedger(starts)
        async with TcpProxy("127.0.0.1", node.port) as proxy, receiving(moody()) as receiver:
            through = cluster.broker_url.replace(f":{node.port}/", f":{proxy.port}/")
            await asyncio.to_thread(cluster.start_server, HOMING_RESEND_AFTER="2")
            for _ in range(2):
                await asyncio.to_thread(cluster.start_worker, HOMING_BROKER_URL=through, HOMING_DELIVERY_DELAYS=DELAYS)
            async with AsyncClient(cluster.target, timeout=60) as client, ledger.watching(client):
                for name, policy in FUNCTIONS.items():
                    await client.functions.deploy(
                        name=name,
                        command=["sh", "-c", WORK, str(starts)],
                        max_instances=4,
                        retry_policy=policy,
                        on_success=receiver.url,
                        on_failure=receiver.url,
                    )
                yield cls(cluster, proxy, client, ledger, receiver)
                for worker in cluster.workers:
                    # Their last events are confirmed while they can reach the broker.
                    if worker.running:
                        await asyncio.to_thread(worker.terminate)

    async def blow(self, seed: int) -> None:
        """Do everything, in an order and at a pace that the seed decides, and check that P2 to P7 have held."""
        try:
            await self._rage(seed)
            await self._check()
        except Exception as error:
            error.add_note(f"in the storm of seed {seed}")
            raise

    async def _rage(self, seed: int) -> None:
        rng = Random(seed)
        plan = [name for name, times in DEEDS.items() for _ in range(times)]
        rng.shuffle(plan)
        async with asyncio.TaskGroup() as group:
            for name in ["accept", *plan]:
                # Each has its own numbers: the order in which they happen to come first changes none.
                group.create_task(getattr(self, f"_{name}")(Random(rng.random())))
                await asyncio.sleep(rng.uniform(0.0, LONGEST_PAUSE))
        await self.ledger.until_ended()
        # Ends are told in their order: what was told before this one is all there is.
        await self.ledger.accept(self.client, "quick", payload="0 0")
        await self.ledger.until_ended()

    async def _check(self) -> None:
        self.ledger.check()
        await gauges_after(self._cluster.server, lambda gauges: not gauges.all("homing_deliveries"))
        starts = self.ledger.starts()
        for each, event in self.ledger.ends.items():
            record = await self.client.get(each)
            check_end(record, event, origin=self._origins.get(each), starts=starts[each])
            (delivery,) = record.deliveries
            assert delivery.state is DeliveryState.DELIVERED, record
            assert self._receiver.seen[delivery.id] >= 1, record
        stopped = self.ledger.starts_when_stopped
        assert {each: len(starts[each]) for each in stopped} == stopped, "what was stopped has started afterwards"
        gauges = await settled_gauges(self._cluster.server)
        assert gauges.records == {state.name: count for state, count in self.ledger.states().items()}
        assert (gauges.record_drift, gauges.broker_drift) == (0, {}), gauges.samples

    async def _accept(self, rng: Random) -> None:
        for _ in range(rng.randint(3, 12)):
            function = rng.choice(list(FUNCTIONS))
            payload = f"{rng.choice((0, 0.05, 0.3, 1))} {rng.choice((0, 0, 0, 0, 0, 0, 1, 9))}"
            request_id = f"request-{rng.getrandbits(64):x}"
            later = rng.random() < 0.2
            handle = await self.client.invoke_async(
                function, payload, request_id=request_id, delay=rng.uniform(0.0, 3.0) if later else None
            )
            if not later:
                self._requests[request_id] = function, payload, handle.id
            await self.ledger.note(handle.id, function)

    async def _repeat(self, rng: Random) -> None:
        if self._requests:
            request_id, (function, payload, invocation_id) = rng.choice(list(self._requests.items()))
            handle = await self.client.invoke_async(function, payload, request_id=request_id)
            assert (handle.id, handle.duplicate) == (invocation_id, True)
            try:
                await self.client.invoke_async(function, payload + " other", request_id=request_id)
            except AlreadyExistsError:
                return
            raise AssertionError(f"the request id {request_id} was accepted with another content")

    async def _stop(self, rng: Random) -> None:
        going_on = [each for each in self.ledger.accepted if each not in self.ledger.ends]
        if going_on:
            invocation_id = rng.choice(going_on)
            try:
                record = await self.client.stop(invocation_id, reason="the storm")
            except InvocationEndedError:
                return
            if record.state is InvocationState.STOPPED:
                self.ledger.note_stopped(invocation_id)

    async def _rerun(self, rng: Random) -> None:
        if self.ledger.ends:
            origin = rng.choice(list(self.ledger.ends))
            handle = await self.client.rerun(origin)
            self._origins[handle.id] = origin
            await self.ledger.note(handle.id, self.ledger.accepted[origin])

    async def _pause(self, rng: Random) -> None:
        function = rng.choice(list(FUNCTIONS))
        await self.client.functions.pause(function)
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        await self.client.functions.resume(function)

    async def _cut(self, _: Random) -> None:
        # What the workers have in hand is delivered again, while they go on with it.
        await self._proxy.cut()

    async def _kill_worker(self, rng: Random) -> None:
        await self._kill(rng, rng.choice(self._cluster.workers))

    async def _kill_server(self, rng: Random) -> None:
        await self._kill(rng, rng.choice(self._cluster.servers))

    async def _kill(self, rng: Random, process: HomingProcess) -> None:
        async with self._locks[process]:
            await asyncio.to_thread(process.kill)
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            await asyncio.to_thread(process.start)


def check_end(record: Invocation, told: WatchEvent, *, origin: str | None, starts: list[str]) -> None:
    """Check that a record is what its watchers were told, and that one attempt at most has settled it."""
    assert record.state is told.invocation.state
    assert record.state in {InvocationState.SUCCEEDED, InvocationState.FAILED, InvocationState.STOPPED}, record
    assert record.rerun_of == origin, record
    succeeded = [attempt for attempt in record.attempts if attempt.outcome is AttemptOutcome.SUCCEEDED]
    if record.state is InvocationState.SUCCEEDED:
        assert succeeded == [record.attempts[-1]], record
        assert record.result is not None
        assert record.result.text.strip() in starts, record
    else:
        assert succeeded == [], record
