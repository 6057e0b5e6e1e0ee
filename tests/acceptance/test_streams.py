"""Answers that reach callers as they come: on a homing dev, and on RabbitMQ with two servers and two workers."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest

from homing import (
    AnswerStream,
    AsyncClient,
    Client,
    FunctionError,
    FunctionTimeoutError,
    Invocation,
    InvocationState,
    InvocationStoppedError,
    NotFoundError,
    ResultTimeoutError,
    RetryPolicy,
)
from homing_core.limits import KIB, MIB
from support.docker import docker
from support.processes import Cluster, Dev
from support.rabbitmq import RabbitNode
from support.source import Exchange, Source, running_source

PATIENCE = 60.0
SOON = 2.0
"""Seconds within which a function is left whose caller has gone."""
MAX_PEAK = 150 * MIB
EVENTS = "text/event-stream"


@dataclass(frozen=True, kw_only=True)
class House:
    """What runs, a client of it, and the function `source` that does as a test says."""

    client: Client
    target: str
    source: Source
    pids: list[int]

    def stream(self, path: str, answer: Callable[[Exchange], None], **options: object) -> AnswerStream:
        self.source.answers[path] = answer
        return self.client.invoke_stream("source", "x", path=path, **options)  # type: ignore[arg-type]  # as they are

    def record(self, invocation_id: str) -> Invocation:
        """Return the record once it has ended. It comes a moment after the answer."""

        until(lambda: is_recorded(self.client, invocation_id))
        return self.client.handle(invocation_id).wait(timeout=PATIENCE)


def is_recorded(client: Client, invocation_id: str) -> bool:
    try:
        client.get(invocation_id)
    except NotFoundError:
        return False
    return True


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("streams")
    with running_source() as source:
        if request.param == "dev":
            dev = Dev(folder)
            dev.start()
            with Client(dev.target, timeout=PATIENCE) as client:
                client.functions.deploy(name="source", url=source.url, concurrency=10)
                yield House(client=client, target=dev.target, source=source, pids=[dev.pid])
            assert dev.terminate() == 0
            return
        node: RabbitNode = request.getfixturevalue("rabbit_node")
        url = node.new_vhost()
        with Cluster(url, folder) as cluster:
            cluster.start_server()
            # Answers have to come to the very server where the caller waits.
            server = cluster.start_server()
            workers = [cluster.start_worker(), cluster.start_worker()]
            with Client(server.target, timeout=PATIENCE) as client:
                client.functions.deploy(name="source", url=source.url, concurrency=10)
                pids = [server.pid, *(worker.pid for worker in workers)]
                yield House(client=client, target=server.target, source=source, pids=pids)
        node.leave_vhost(url)


def until(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Wait until something holds that nobody tells of."""
    limit = time.monotonic() + within
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def in_turn(parts: list[bytes], content_type: str = EVENTS) -> tuple[Callable[[Exchange], None], Queue[None]]:
    """Return what writes the parts, each after the one before was read as the queue tells."""
    read: Queue[None] = Queue()

    def answer(call: Exchange) -> None:
        call.chunked(content_type)
        for part in parts:
            call.chunk(part)
            read.get(timeout=PATIENCE)
        call.end()

    return answer, read


@pytest.mark.parametrize("content_type", [EVENTS, "application/x-ndjson", "text/plain"])
def test_parts_are_passed_on_as_they_come(house: House, content_type: str) -> None:
    lags = []
    for number in range(3):
        parts = [b"data: %d\n\n" % part for part in range(10)]
        answer, read = in_turn(parts, content_type)
        with house.stream(f"/parts/{content_type}/{number}", answer) as stream:
            assert (stream.status_code, stream.content_type, stream.headers["x-own"]) == (200, content_type, "1")
            for part, chunk in zip(parts, stream, strict=True):
                lags.append(time.monotonic() - house.source.calls[-1].times[-1])
                assert chunk == part
                read.put(None)
        assert stream.invocation is not None
        assert stream.invocation.state is InvocationState.SUCCEEDED
        record = house.record(stream.invocation_id)
        assert record.result is not None
        assert (record.result.data, record.result.cut) == (b"".join(parts), False)
        assert record.result.streamed_size == len(record.result.data)
    # A bound that holds where other tests run too; alone these take a millisecond.
    assert sorted(lags)[len(lags) // 2] < 0.1


def test_a_head_is_passed_on_before_there_is_a_body(house: House) -> None:
    entered = threading.Event()

    def answer(call: Exchange) -> None:
        call.chunked(EVENTS)
        entered.wait(PATIENCE)
        call.end()

    with house.stream("/head", answer) as stream:
        entered.set()
        assert list(stream) == []


def test_what_is_over_within_moments_is_not_streamed(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")

    with house.stream("/small", answer) as stream:
        assert b"".join(stream) == b"ok"
    record = house.record(stream.invocation_id)
    assert record.result is not None
    assert (record.result.data, record.result.streamed_size) == (b"ok", 0)


@pytest.mark.parametrize("chunked", [True, False])
def test_the_record_keeps_the_beginning_and_says_that_it_is_cut(house: House, *, chunked: bool) -> None:
    block = os.urandom(100 * KIB)

    def answer(call: Exchange) -> None:
        if chunked:
            call.chunked()
            for _ in range(10):
                call.chunk(block)
            call.end()
        else:
            call.head(f"Content-Length: {10 * len(block)}")
            for _ in range(10):
                call.write(block)

    with house.stream(f"/cut/{chunked}", answer) as stream:
        assert b"".join(stream) == 10 * block
    record = house.record(stream.invocation_id)
    assert record.result is not None
    assert record.result.data == (3 * block)[: 256 * KIB]
    assert (record.result.cut, record.result.streamed_size) == (True, 10 * len(block))


def test_a_caller_that_leaves_stops_the_function(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.chunked(EVENTS)
        call.chunk(b"one")
        call.wait_left(PATIENCE)

    with house.stream("/leave", answer) as stream:
        assert next(stream) == b"one"
        call = house.source.calls[-1]
    assert call.left.wait(SOON)
    record = house.record(stream.invocation_id)
    assert record.state is InvocationState.STOPPED
    assert record.failure is not None
    assert "its caller went away" in record.failure.message
    assert record.result is not None
    assert (record.result.data, record.result.cut) == (b"one", True)


async def test_the_asynchronous_client_leaves_as_well(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.chunked(EVENTS)
        call.chunk(b"one")
        call.wait_left(PATIENCE)

    house.source.answers["/leave-async"] = answer
    async with AsyncClient(house.target) as client:
        async with client.invoke_stream("source", path="/leave-async") as stream:
            assert await anext(stream) == b"one"
            call = house.source.calls[-1]
        assert call.left.wait(SOON)


def test_a_slow_reader_makes_the_function_wait(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.chunked()
        while True:
            call.chunk(b"x" * 64 * KIB)

    with house.stream("/slow", answer) as stream:
        first = next(stream)
        call = house.source.calls[-1]
        seen, since = -1, time.monotonic()

        def rests() -> bool:
            nonlocal seen, since
            if call.sent != seen:
                seen, since = call.sent, time.monotonic()
            return time.monotonic() - since > 0.5

        until(rests)
        assert call.sent < 32 * MIB
        read = len(first)
        while read < 2 * seen:
            read += len(next(stream))
        assert call.sent > seen
    assert call.left.wait(SOON)


def test_an_answer_that_breaks_off_is_no_end(house: House) -> None:
    answer, read = in_turn([b"one"])

    def breaks(call: Exchange) -> None:
        call.end = lambda: None  # type: ignore[method-assign]
        answer(call)

    with house.stream("/breaks", breaks) as stream:
        assert next(stream) == b"one"
        read.put(None)
        with pytest.raises(FunctionError, match="broke off"):
            next(stream)
    record = house.record(stream.invocation_id)
    # No other attempt: the caller has seen the beginning of this one.
    assert (record.state, record.attempt_count) == (InvocationState.FAILED, 1)
    assert record.failure is not None
    assert (record.failure.reason, record.failure.retryable) == ("CONNECTION_LOST", False)
    assert record.result is not None
    assert (record.result.data, record.result.cut) == (b"one", True)


def test_what_fails_before_the_first_byte_is_tried_again(house: House) -> None:
    answer, read = in_turn([b"one"])
    statuses = iter(["503 Busy", ""])

    def second(call: Exchange) -> None:
        if status := next(statuses):
            call.chunked(status=status)
            call.chunk(b"busy")
            call.end()
        else:
            answer(call)

    policy = RetryPolicy(max_attempts=2, initial_backoff=0.01)
    with house.stream("/again", second, retry_policy=policy) as stream:
        assert next(stream) == b"one"
        read.put(None)
        assert list(stream) == []
    assert stream.invocation is not None
    assert [attempt.status_code for attempt in stream.invocation.attempts] == [503, 200]


def test_a_failure_is_told_as_invoke_tells_it(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.head("Content-Length: 4", status="404 Nothing")
        call.write(b"none")

    with (
        pytest.raises(FunctionError, match="404") as raised,
        house.stream("/failure", answer, retry_policy=RetryPolicy(max_attempts=1)),
    ):
        pytest.fail("there is nothing to read")
    assert raised.value.result is not None
    assert (raised.value.result.status_code, raised.value.result.data) == (404, b"none")


def test_a_failure_that_is_long_is_streamed_and_then_told(house: House) -> None:
    answer, read = in_turn([b"o", b"h"])

    def fails(call: Exchange) -> None:
        chunked = call.chunked
        call.chunked = lambda *given: chunked(*given, status="500 Broken")  # type: ignore[method-assign]
        answer(call)

    with house.stream("/long-failure", fails, retry_policy=RetryPolicy(max_attempts=1)) as stream:
        assert stream.status_code == 500
        for expected in (b"o", b"h"):
            assert next(stream) == expected
            read.put(None)
        with pytest.raises(FunctionError, match="500"):
            next(stream)


def test_the_time_out_is_for_the_head_alone(house: House) -> None:
    answer, read = in_turn([b"one", b"two"])
    began = time.monotonic()
    with house.stream("/timeout", answer, timeout=0.8) as stream:
        assert next(stream) == b"one"
        threading.Timer(max(0.0, 1.3 - (time.monotonic() - began)), read.put, [None]).start()
        assert next(stream) == b"two"
        read.put(None)
        assert list(stream) == []

    def never(call: Exchange) -> None:
        call.wait_left(PATIENCE)

    with pytest.raises(ResultTimeoutError), house.stream("/never", never, timeout=0.5):
        pytest.fail("there is no answer")


def test_the_attempt_time_out_bounds_the_answer(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.chunked(EVENTS)
        call.chunk(b"one")
        call.wait_left(PATIENCE)

    with house.stream("/attempt", answer, attempt_timeout=1.0) as stream:
        assert next(stream) == b"one"
        with pytest.raises(FunctionTimeoutError):
            next(stream)
    assert house.record(stream.invocation_id).state is InvocationState.TIMED_OUT


def test_a_stop_ends_it(house: House) -> None:
    def answer(call: Exchange) -> None:
        call.chunked(EVENTS)
        call.chunk(b"one")
        call.wait_left(PATIENCE)

    with house.stream("/stop", answer) as stream:
        assert next(stream) == b"one"
        until(lambda: is_recorded(house.client, stream.invocation_id))
        house.client.stop(stream.invocation_id, reason="enough")
        with pytest.raises(InvocationStoppedError):
            next(stream)


def test_much_passes_with_little_memory(house: House) -> None:
    block, times = bytes(64 * KIB), 200 * MIB // (64 * KIB)

    def answer(call: Exchange) -> None:
        call.head(f"Content-Length: {len(block) * times}")
        for _ in range(times):
            call.write(block)

    for pid in house.pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    with house.stream("/much", answer) as stream:
        assert sum(map(len, stream)) == 200 * MIB
    for pid in house.pids:
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        assert int(re.findall(r"VmHWM:\s+(\d+) kB", told)[0]) * KIB < MAX_PEAK


def test_what_a_command_writes_is_passed_on_too(house: House, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    house.client.functions.deploy(name="talks", command=["sh", "-c", f"echo one; cat {pipe}; exit $(cat)"])

    def talk(status: str) -> AnswerStream:
        return house.client.invoke_stream("talks", status, content_type="x/y")

    with talk("0") as stream:
        assert (stream.status_code, stream.content_type) == (200, "x/y")
        assert next(stream) == b"one\n"
        pipe.write_bytes(b"two\n")
        assert b"".join(stream) == b"two\n"
    with talk("3") as stream:
        assert next(stream) == b"one\n"
        pipe.write_bytes(b"two\n")
        with pytest.raises(FunctionError, match="exit status 3"):
            list(stream)
    record = house.record(stream.invocation_id)
    assert (record.attempt_count, record.attempts[0].status_code) == (1, 500)
    assert record.result is not None
    assert (record.result.data, record.result.cut) == (b"one\ntwo\n", True)


def test_a_command_may_write_more_than_is_kept_of_others(house: House) -> None:
    size = 70 * MIB
    house.client.functions.deploy(name="zeros", command=["head", "-c", str(size), "/dev/zero"])
    with house.client.invoke_stream("zeros") as stream:
        assert sum(map(len, stream)) == size
    record = house.record(stream.invocation_id)
    assert record.result is not None
    assert (len(record.result.data), record.result.streamed_size) == (256 * KIB, size)


def test_a_command_whose_reader_leaves_is_killed(house: House, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    house.client.functions.deploy(name="yes", command=["sh", "-c", f"echo $$ > {file}; exec yes"])
    with house.client.invoke_stream("yes") as stream:
        next(stream)
        pid = int(file.read_text(encoding="ascii"))
    left = time.monotonic()
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert time.monotonic() - left < SOON


def test_a_command_that_fails_soon_is_tried_again(house: House) -> None:
    fails_once = 'echo it; [ "$Http_X_Homing_Attempt" = 2 ]'
    policy = RetryPolicy(max_attempts=2, initial_backoff=0.01)
    house.client.functions.deploy(name="flaky", command=["sh", "-c", fails_once], retry_policy=policy)
    with house.client.invoke_stream("flaky") as stream:
        assert list(stream) == [b"it\n"]
    assert stream.invocation is not None
    assert stream.invocation.attempt_count == 2


def test_where_the_server_cannot_be_reached_by_the_worker_the_answer_comes_whole(cluster: Cluster) -> None:
    cluster.start_server(HOMING_DATA_URL="http://127.0.0.1:1")
    worker = cluster.start_worker()
    client = cluster.client(timeout=PATIENCE)

    def answer(call: Exchange) -> None:
        call.chunked(EVENTS)
        call.chunk(b"one")
        worker.wait_for_log("answer_not_streamed")
        call.chunk(b"two")
        call.end()

    with running_source() as source:
        source.answers["/"] = answer
        client.functions.deploy(name="source", url=source.url)
        with client.invoke_stream("source") as stream:
            assert list(stream) == [b"onetwo"]
    assert stream.invocation is not None
    assert stream.invocation.result is not None
    assert stream.invocation.result.streamed_size == 0


def test_the_answer_of_a_container_is_passed_on_and_its_reader_may_leave(
    broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    with Cluster(broker_url, tmp_path, runtime="docker") as cluster:
        cluster.start_server()
        cluster.start_worker()
        client = cluster.client(timeout=PATIENCE)
        client.functions.deploy(name="odd", image=odd_image)
        # It writes without end.
        with client.invoke_stream("odd", path="/flood") as stream:
            assert stream.status_code == 200
            assert sum(len(next(stream)) for _ in range(100)) > MIB
        left = time.monotonic()
        until(lambda: not docker("ps", "--quiet", "--filter", f"ancestor={odd_image}"))
        assert time.monotonic() - left < SOON + 1.0  # the command takes a part of it
        until(lambda: is_recorded(client, stream.invocation_id))
        assert client.handle(stream.invocation_id).wait().state is InvocationState.STOPPED
