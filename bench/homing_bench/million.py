"""What a million recorded invocations cost: how long pages of lists take, and how fast more is recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import grpc

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as rpc
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing_bench.cpu import CpuMeter
from homing_bench.figures import percentiles, rate
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.lifecycle import State
from homing_server.store.engine import Database
from homing_server.store.record import record_events
from support.many import FUNCTIONS, JOBS, TEAMS, fill
from support.processes import Dev
from support.reporter import Reporter
from support.store import accept_all, make_draft, make_spec, opened

NEWEST, OLDEST = rpc.INVOCATION_ORDER_NEWEST_FIRST, rpc.INVOCATION_ORDER_OLDEST_FIRST
_ROUNDS = 7
_PER_ROUND = 3000
_TRANSACTION = 167
"""So many invocations, with three events each, the recorder takes into a transaction when it has much to do."""
_CALLS = 100
_DEEP = 10_000
_STATES = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED, State.EXPIRED, State.INVALID)
_DAY = 24 * 3600 * 1_000_000

Tell = Callable[[str], None]
Row = tuple[str, str, str]


async def measure(folder: Path, count: int, tell: Tell) -> list[str]:
    """Fill a store, measure and return the lines of a table."""
    folders = {0: folder / "empty", count: folder / "full"}
    for each in folders.values():
        async with opened(each, functions=FUNCTIONS):
            pass
    begin = time.monotonic()
    await asyncio.to_thread(fill, folders[count] / "homing.db", count)
    tell(f"{count:,} records loaded in {time.monotonic() - begin:.0f} s")
    rows = [("what", "figure", "server's processor time"), *await _recording(folders, tell)]
    server = Dev(folders[count])
    await asyncio.to_thread(server.start)
    try:
        rows += await asyncio.to_thread(_reading, server, tell)
    finally:
        await asyncio.to_thread(server.terminate)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"| {what.ljust(widths[0])} | {figure.rjust(widths[1])} | {cpu.rjust(widths[2])} |"
        for what, figure, cpu in rows
    ]
    return [lines[0], f"| {'-' * widths[0]} | {'-' * (widths[1] - 1)}: | {'-' * (widths[2] - 1)}: |", *lines[1:]]


async def _recording(folders: dict[int, Path], tell: Tell) -> list[Row]:
    """Record in the empty and in the full store by turns, so that what else the machine does harms both alike."""
    seconds: dict[int, list[float]] = {count: [] for count in folders}
    for _ in range(_ROUNDS):
        for count, folder in folders.items():
            async with opened(folder, functions=()) as database:
                seconds[count].append(await _record(database))
    rates = {count: _PER_ROUND / median(taken) for count, taken in seconds.items()}
    rows = [(f"recording, {count:,} records before", rate(_PER_ROUND, median(seconds[count])), "") for count in folders]
    rows.append(("recording, share of the rate that is kept", f"{rates[max(rates)] / rates[0]:.0%}", ""))
    for row in rows:
        tell(" ".join(row))
    return rows


async def _record(database: Database) -> float:
    """Record the lives of invocations and return how many seconds it took."""
    random = Random(3)  # noqa: S311 the same figures in each run
    keys = []
    for _ in range(_PER_ROUND // 500):
        specs = [
            make_spec(random.choice(FUNCTIONS), bytes(256), labels={"job": str(random.randrange(JOBS))})
            for _ in range(500)
        ]
        drafts = [make_draft(spec, sent=True) for spec in specs]
        await accept_all(database, *drafts)
        keys += [draft.id for draft in drafts]
    workers = [Reporter(1, invocation_id=key, time_us=now_us()) for key in keys]
    events = [(worker.dequeued(), worker.running(), worker.ended(State.SUCCEEDED)) for worker in workers]
    begin = time.monotonic()
    for start in range(0, len(events), _TRANSACTION):
        group = [event for life in events[start : start + _TRANSACTION] for event in life]
        await database.write(record_events, group)
    return time.monotonic() - begin


def _reading(server: Dev, tell: Tell) -> list[Row]:
    rows: list[Row] = []

    def timed(what: str, call: Callable[[Any], Any], requests: Sequence[Any]) -> None:
        taken = []
        meter = CpuMeter({"server": [server.pid]})
        for request in requests:
            begin = time.monotonic()
            call(request)
            taken.append(time.monotonic() - begin)
        cpu = meter.per_operation(len(requests))["server"]
        rows.append((what, percentiles(taken), f"{cpu / 1000:.1f} ms"))

    with grpc.insecure_channel(server.target) as channel:
        stub = InvocationServiceStub(channel)
        filters = _filters(Random(5), stub)  # noqa: S311 the same filters in each run
        for name, draw in filters.items():
            for order, title in ((NEWEST, "newest first"), (OLDEST, "oldest first")):
                pages = [rpc.ListInvocationsRequest(filter=draw(), order=order) for _ in range(_CALLS)]
                timed(f"list by {name}, {title}", stub.ListInvocations, pages)
            deep = _deep(stub, draw)
            if deep is not None:
                timed(f"list by {name}, behind {_DEEP:,}", stub.ListInvocations, [deep] * _CALLS)
            counts = [rpc.CountInvocationsRequest(filter=draw()) for _ in range(_CALLS // 10)]
            timed(f"count by {name}", stub.CountInvocations, counts)
            tell(f"{name}: done")
    return rows


def _deep(stub: InvocationServiceStub, draw: Callable[[], api.InvocationFilter]) -> rpc.ListInvocationsRequest | None:
    """Return the request for a page far behind the first; None where a filter does not select so many."""
    request = rpc.ListInvocationsRequest(filter=draw(), page_size=500)
    for _ in range(_DEEP // 500):
        request.page_token = stub.ListInvocations(request).next_page_token
        if not request.page_token:
            return None
    request.page_size = 0
    return request


def _filters(random: Random, stub: InvocationServiceStub) -> dict[str, Callable[[], api.InvocationFilter]]:
    """Return by name what makes filters of a kind, each time another one."""
    edges = [
        stub.ListInvocations(rpc.ListInvocationsRequest(order=order, page_size=1)).invocations[0].create_time
        for order in (OLDEST, NEWEST)
    ]
    begin_us, end_us = (edge.ToMicroseconds() for edge in edges)
    some = stub.ListInvocations(rpc.ListInvocationsRequest(order=OLDEST, page_size=1000)).invocations
    reruns = [one.rerun_of for one in some if one.rerun_of]

    def some_time(longest_us: int) -> api.TimeRange:
        start_us = random.randint(begin_us, end_us)
        bounds = api.TimeRange()
        bounds.start_time.FromMicroseconds(start_us)
        bounds.end_time.FromMicroseconds(start_us + random.randint(1, longest_us))
        return bounds

    def make(**fields: Callable[[], Any]) -> Callable[[], api.InvocationFilter]:
        return lambda: api.InvocationFilter(**{name: draw() for name, draw in fields.items()})

    def function() -> list[str]:
        return [random.choice(FUNCTIONS)]

    def state() -> list[int]:
        return [random.choice(_STATES)]

    def id_prefix() -> str:
        return new_id(random.randint(begin_us, end_us))[: random.randint(4, 13)]

    return {
        "nothing": make(),
        "function": make(functions=function),
        "state": make(states=state),
        "function and state": make(functions=function, states=state),
        "3 functions and 2 states": make(
            functions=lambda: random.sample(FUNCTIONS, 3), states=lambda: random.sample(_STATES, 2)
        ),
        "time of acceptance": make(create_time=lambda: some_time(_DAY)),
        "function, state and time": make(functions=function, states=state, create_time=lambda: some_time(_DAY)),
        f"label, 1 of {JOBS:,} values": make(labels=lambda: {"job": str(random.randrange(JOBS))}),
        f"label, 1 of {TEAMS} values": make(labels=lambda: {"team": str(random.randrange(TEAMS))}),
        "prefix of the id": make(id_prefix=id_prefix),
        "re-run": make(rerun_of=lambda: random.choice(reruns)),
        "time of start, up to a day": make(start_time=lambda: some_time(_DAY)),
        "time of end, up to a day": make(end_time=lambda: some_time(_DAY)),
        "time of start, up to 10 minutes": make(start_time=lambda: some_time(_DAY // 144)),
        "time of end, up to 10 minutes": make(end_time=lambda: some_time(_DAY // 144)),
    }
