"""What a test measures while somebody misbehaves: how long others wait, and what the server's memory grows to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

from homing import AsyncClient
from homing.v1 import InvokeAsyncRequest
from support.grpc_errors import error_info

MIB = 1024 * 1024


@dataclass(kw_only=True, slots=True)
class Measured:
    """What was seen so far."""

    calls: list[float] = field(default_factory=list)
    """How many seconds each call of the others took."""
    grown: int = 0
    """By how many bytes the memory of the server was above what it was before, at the most."""

    @property
    def slowest(self) -> float:
        """How many seconds the slowest call of the others took."""
        return max(self.calls)

    def within(self, part: float) -> float:
        """Return in how many seconds such a part of the calls was over."""
        return sorted(self.calls)[int(part * len(self.calls))]


Metadata = Sequence[tuple[str, str]]


def send(channel: grpc.Channel, method: MethodDescriptor, raw: bytes, metadata: Metadata) -> grpc.Call | None:
    """Send bytes as a request; return the error that came of it."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    anything: Any = raw
    options: Any = {"timeout": 60, "metadata": metadata}
    try:
        if method.client_streaming and method.server_streaming:
            next(iter(channel.stream_stream(path)(iter([anything]), **options)), None)
        elif method.client_streaming:
            channel.stream_unary(path)(iter([anything]), **options)
        elif method.server_streaming:
            stream: Any = channel.unary_stream(path)(anything, **options)
            next(stream, None)
            stream.cancel()
        else:
            channel.unary_unary(path)(anything, **options)
    except grpc.RpcError as error:
        caught: Any = error
        return caught  # type: ignore[no-any-return]
    return None


def resident(pid: int) -> int:
    """Return how many bytes of memory a process takes now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def call_at_once(target: str, key: str, clients: int, number: int) -> Counter[str]:
    """Make so many calls of `InvokeAsync` at once, over so many connections; return how they ended."""
    request = InvokeAsyncRequest()
    request.spec.function = "quiet"
    request.spec.payload.data = b"x"
    raw: Any = request.SerializeToString()
    with ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [stack.enter_context(grpc.insecure_channel(target, options=options)) for _ in range(clients)]
        methods: list[Any] = [each.unary_unary("/homing.v1.InvocationService/InvokeAsync") for each in channels]
        metadata = (("authorization", f"Bearer {key}"),)
        calls = [methods[place % clients].future(raw, metadata=metadata, timeout=120) for place in range(number)]
        return Counter(map(_end, calls))


def invoke_at_once(target: str, key: str, number: int) -> set[str]:
    """Have one client make so many calls of `invoke_async` at once; return the ids of what was accepted."""

    async def invoke() -> set[str]:
        async with AsyncClient(target, api_key=key, timeout=120) as client:
            handles = await asyncio.gather(*(client.invoke_async("quiet", b"x") for _ in range(number)))
        return {handle.id for handle in handles}

    return asyncio.run(invoke())


def _end(call: Any) -> str:
    error = call.exception()
    if error is None:
        return "OK"
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"{error.code().name}: {error.details()}"
    return error_info(error).reason


@contextmanager
def watching(pid: int, call: Callable[[], object]) -> Iterator[Measured]:
    """Make the calls of somebody else, one after the other, and look at the memory of the server."""
    before = resident(pid)
    measured = Measured()
    over = threading.Event()
    failures: list[BaseException] = []

    def others() -> None:
        while not over.is_set():
            begun = time.monotonic()
            try:
                call()
            except BaseException as error:  # noqa: BLE001 it is told below
                failures.append(error)
                return
            finally:
                measured.calls.append(time.monotonic() - begun)
            over.wait(0.02)

    def memory() -> None:
        while not over.wait(0.02):
            measured.grown = max(measured.grown, resident(pid) - before)

    threads = [threading.Thread(target=each, daemon=True) for each in (others, memory)]
    for thread in threads:
        thread.start()
    try:
        yield measured
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    if failures:
        raise failures[0]
    assert measured.calls, "nobody else has called"
