"""A worker that runs containers, on a real RabbitMQ and a real Docker Engine."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function, Limits
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import HttpOptions, Payload
from homing.v1.policy_pb2 import RetryPolicy
from homing_core import limits
from homing_worker import app
from homing_worker.app import Worker
from support.docker import LABEL, FunctionImages, build, docker, remove_by_label
from support.fake_server import FakeServer
from support.http_headers import by_name, headers_of
from support.workers import running_worker

IMAGES = Path(__file__).parents[2] / "support" / "images"
ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = Duration(nanos=1_000_000)


@pytest.fixture
async def worker(server: FakeServer, broker_url: str, tmp_path: Path) -> AsyncIterator[Worker]:
    async with running_worker(
        server, broker_url, tmp_path, runtime="docker", start_timeout=10.0, stop_grace=1
    ) as running:
        yield running


def at(path: str, function: str = "odd", **fields: Any) -> InvocationSpec:
    return InvocationSpec(function=function, http=HttpOptions(path=path), **fields)


def containers_of(worker: Worker) -> list[str]:
    return docker("ps", "--quiet", "--all", "--filter", f"label=dev.homing.owner={worker.name}").split()


async def test_an_image_that_knows_nothing_of_functions_runs_from_zero_and_stops_when_idle(
    server: FakeServer, worker: Worker, function_images: FunctionImages
) -> None:
    await server.deploy(Function(name="plain", image=function_images.plain, idle_timeout=Duration(seconds=1)))
    assert containers_of(worker) == []

    id_ = await server.send(InvocationSpec(function="plain"))
    end = await server.end(id_)

    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    assert end.result.payload.data == b"plain\n"
    assert (await server.event(id_, "dequeued")).dequeued.cold_start
    assert end.attempts[0].instance.startswith("homing-plain-")
    await server.status(lambda status: [load.instances for load in status.functions] == [0])
    await server.drained("plain")


async def test_a_function_sees_its_request(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image, env={"GREETING": "hello there"}))

    create_us = 1_700_000_000_123_456
    id_ = await server.send(
        InvocationSpec(
            function="odd",
            payload=Payload(content_type="text/plain", data=b"body"),
            http=HttpOptions(
                method="PUT", path="/echo", query="a=b&c=d", headers=headers_of([("X-Mine", "a"), ("x-mine", "b")])
            ),
            attempt_timeout=Duration(seconds=20),
        ),
        create_us=create_us,
        prior_attempts=1,
    )
    end = await server.end(id_)

    seen = json.loads(end.result.payload.data)
    headers = seen["headers"]
    assert (seen["path"], seen["body"]) == ("/echo?a=b&c=d", "body")
    assert seen["environment"]["GREETING"] == "hello there"
    assert headers["content-type"] == "text/plain"
    assert [value for name, value in seen["pairs"] if name == "x-mine"] == ["a", "b"]
    assert headers["x-call-id"] == id_
    assert headers["x-start-time"] == str(create_us * 1000)
    assert headers["x-homing-attempt"] == "2"
    assert headers["x-homing-deadline"].endswith("Z")
    assert headers["user-agent"].startswith("homing-worker/")
    assert "accept-encoding" not in headers


async def test_an_answer_that_cannot_be_kept_is_a_failure(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image, concurrency=8, max_instances=1))
    reasons = {
        "/flood": "RESULT_TOO_LARGE",
        "/flood-length": "RESULT_TOO_LARGE",
        f"/size/{limits.MAX_PAYLOAD + 1}": "RESULT_TOO_LARGE",
        "/garbage": "BAD_RESPONSE",
        "/headers": "BAD_RESPONSE",
        "/long-header": "BAD_RESPONSE",
        "/short": "CONNECTION_LOST",
        "/close": "CONNECTION_LOST",
        "/redirect": "HTTP_STATUS",
    }
    seen, instances = {}, set()
    for path in reasons:
        id_ = await server.send(at(path, retry_policy=ONCE, attempt_timeout=Duration(seconds=10)))
        end = await server.end(id_)
        assert end.state == api.INVOCATION_STATE_FAILED
        seen[path] = end.failure.reason
        after = await server.end(await server.send(InvocationSpec(function="odd", payload=Payload(data=b"well"))))
        assert after.result.payload.data == b"well"
        instances |= {end.attempts[0].instance, after.attempts[0].instance}

    assert seen == reasons
    assert len(instances) == 1


async def test_neighbours_notice_nothing(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image, concurrency=16))
    # On its own: an answer without a length that is cut off by the end of its instance counts as whole.
    await server.deploy(Function(name="dying", image=odd_image))
    await server.deploy(Function(name="good", image=odd_image, concurrency=4, max_instances=1))
    await server.end(await server.send(at("/", "good")))
    paths = ["/flood", "/continue", "/headers", "/hang", "/garbage", "/close", "/flood-length"]
    where = [("odd", path) for path in paths] + [("dying", "/exit/1")]

    bad = await server.send_all(
        [at(path, function, retry_policy=ONCE, attempt_timeout=Duration(seconds=3)) for function, path in where * 2]
    )
    start = time.monotonic()
    good = [await server.end(await server.send(at("/", "good", payload=Payload(data=b"x")))) for _ in range(20)]
    took = time.monotonic() - start
    ends = [await server.end(id_) for id_ in bad]

    assert all(end.state == api.INVOCATION_STATE_SUCCEEDED for end in good)
    assert took < 10
    assert {end.state for end in ends} <= {api.INVOCATION_STATE_FAILED, api.INVOCATION_STATE_TIMED_OUT}


async def test_the_largest_result_is_kept_and_odd_header_bytes_are_borne(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image))

    largest = await server.end(await server.send(at(f"/size/{limits.MAX_INLINE_RESULT}")))
    odd = await server.end(await server.send(at("/odd-header")))

    assert len(largest.result.payload.data) == limits.MAX_INLINE_RESULT
    assert odd.state == api.INVOCATION_STATE_SUCCEEDED
    assert by_name(odd.result.headers)["x-odd"].startswith("caf")


async def test_a_function_that_fails_twice_succeeds_at_the_third_attempt(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image))

    id_ = await server.send(at("/fail/2/503", retry_policy=RetryPolicy(initial_backoff=AT_ONCE)))
    end = await server.end(id_)
    await server.drained("odd")

    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    assert [attempt.status_code for attempt in end.attempts] == [503, 503, 200]
    assert [attempt.delay_reason for attempt in end.attempts] == ["BACKOFF", "BACKOFF", ""]
    assert [event.attempt_ended.ordinal for event in server.of(id_, "attempt_ended")] == [1, 2]
    assert [event.running.ordinal for event in server.of(id_, "running")] == [1, 2, 3]


async def test_the_last_answer_of_a_failed_invocation_is_kept(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image))

    end = await server.end(
        await server.send(at("/status/500", retry_policy=RetryPolicy(max_attempts=2, initial_backoff=AT_ONCE)))
    )
    final = await server.end(await server.send(at("/status/503/X-Homing-Retry: no")))

    assert (end.state, len(end.attempts)) == (api.INVOCATION_STATE_FAILED, 2)
    assert (end.result.status_code, end.result.payload.data) == (500, b"as told")
    assert (end.failure.reason, end.failure.retryable) == ("HTTP_STATUS", True)
    assert (final.state, len(final.attempts), final.failure.retryable) == (api.INVOCATION_STATE_FAILED, 1, False)


async def test_a_long_delay_hands_the_invocation_back_to_the_store(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image))

    id_ = await server.send(at("/status/503/Retry-After: 30"))
    deferred = (await server.event(id_, "deferred")).deferred
    await server.drained("odd")

    (attempt,) = deferred.attempts
    assert (attempt.delay_reason, attempt.next_delay_us) == ("RETRY_AFTER", 30_000_000)
    assert deferred.due_us == attempt.end_us + 30_000_000
    assert deferred.result.status_code == 503
    assert not server.of(id_, "ended")


async def test_a_function_that_hangs_times_out_and_its_instance_is_replaced(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1))

    end = await server.end(await server.send(at("/hang", attempt_timeout=Duration(seconds=1), retry_policy=ONCE)))
    after = await server.end(await server.send(at("/")))

    assert end.state == api.INVOCATION_STATE_TIMED_OUT
    assert (end.failure.reason, end.attempts[0].outcome) == ("TIMEOUT", api.ATTEMPT_OUTCOME_TIMED_OUT)
    assert after.attempts[0].instance != end.attempts[0].instance


async def test_a_function_that_ends_its_container_fails_with_the_reason_and_is_replaced(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1))

    end = await server.end(await server.send(at("/exit/3", retry_policy=ONCE)))
    after = await server.end(await server.send(at("/", retry_policy=ONCE)))

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "CONNECTION_LOST")
    assert "exited with status 3" in end.failure.message
    assert "going down" in end.failure.message
    assert after.state == api.INVOCATION_STATE_SUCCEEDED
    assert after.attempts[0].instance != end.attempts[0].instance


async def test_a_container_that_uses_more_memory_than_its_limit_fails_for_that(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, limits=Limits(memory_bytes=32 * limits.MIB)))

    end = await server.end(await server.send(at("/eat/200", retry_policy=ONCE)))
    after = await server.end(await server.send(at("/eat/1", retry_policy=ONCE)))

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "OUT_OF_MEMORY")
    assert "used more memory than its limit" in end.failure.message
    assert end.failure.retryable
    assert after.state == api.INVOCATION_STATE_SUCCEEDED


async def test_a_container_that_does_not_start_for_want_of_memory_says_so(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(
        Function(name="odd", image=odd_image, env={"START": "eat"}, limits=Limits(memory_bytes=32 * limits.MIB))
    )

    end = await server.end(await server.send(at("/", retry_policy=ONCE)))

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "OUT_OF_MEMORY")


async def test_no_probe_runs_a_function(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image, env={"DELAY": "0.2"}))
    # By this variable images with a watchdog are known, which has a path of its own for that.
    await server.deploy(Function(name="watched", image=odd_image, env={"fprocess": "cat"}))

    # And by this annotation a function names another one; until it says so the instance is not ready.
    path = {"com.openfaas.health.http.path": "/fail/1/503"}
    await server.deploy(Function(name="named", image=odd_image, env={"fprocess": "cat"}, annotations=path))

    seen = [await server.end(await server.send(at("/seen", name))) for name in ("odd", "watched", "named")]

    assert [json.loads(end.result.payload.data) for end in seen] == [
        ["/seen"], ["/_/health", "/seen"], ["/fail/1/503", "/fail/1/503", "/seen"]
    ]  # fmt: skip


async def test_what_a_watchdog_itself_refuses_is_tried_again_whatever_the_status(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image))
    policy = RetryPolicy(max_attempts=3, initial_backoff=AT_ONCE, retry_status_codes=[503])

    paths = ("/status/404", "/status/404/X-OpenFaaS-Internal:proxy", "/status/429/X-OpenFaaS-Internal:faas-middleware")
    ends = [await server.end(await server.send(at(path, retry_policy=policy))) for path in paths]

    assert [(len(end.attempts), end.result.status_code) for end in ends] == [(1, 404), (3, 404), (3, 429)]


async def test_a_container_that_never_says_that_it_is_ready_is_told_with_what_it_answers(
    server: FakeServer, broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    path = {"com.openfaas.ready.http.path": "/nothing/here"}
    await server.deploy(Function(name="odd", image=odd_image, annotations=path))

    async with running_worker(server, broker_url, tmp_path, runtime="docker", start_timeout=2.0, stop_grace=0):
        end = await server.end(await server.send(at("/", retry_policy=ONCE)))

    assert end.failure.reason == "START_FAILED"
    assert "not ready within 2 s: its /nothing/here answers with status 404" in end.failure.message


@pytest.mark.parametrize("size", [9000, 60_000])
async def test_a_long_header_fails_no_answer(server: FakeServer, worker: Worker, odd_image: str, size: int) -> None:
    await server.deploy(Function(name="odd", image=odd_image))

    end = await server.end(await server.send(at(f"/header/{size}")))

    assert (end.state, len(end.attempts)) == (api.INVOCATION_STATE_SUCCEEDED, 1)


async def test_a_killed_container_is_replaced_and_its_invocation_made_again(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1))

    id_ = await server.send(at("/sleep/2", retry_policy=RetryPolicy(initial_backoff=AT_ONCE)))
    await server.event(id_, "running")
    docker("kill", *containers_of(worker))
    end = await server.end(id_)

    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    first, second = end.attempts
    assert first.failure.reason == "CONNECTION_LOST"
    assert first.instance != second.instance


async def test_a_function_that_does_not_start_fails_with_its_last_words(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, env={"START": "exit"}))

    end = await server.end(await server.send(at("/", retry_policy=RetryPolicy(initial_backoff=AT_ONCE))))

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "START_FAILED")
    assert "exited with status 7" in end.failure.message
    assert "no luck today" in end.failure.message
    assert len(end.attempts) == 3
    assert all(attempt.start_us <= attempt.end_us and not attempt.instance for attempt in end.attempts)


async def test_a_function_that_never_listens_fails_after_the_start_timeout(
    server: FakeServer, broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, env={"START": "deaf"}))

    async with running_worker(server, broker_url, tmp_path, runtime="docker", start_timeout=2.0, stop_grace=0) as made:
        end = await server.end(await server.send(at("/", retry_policy=ONCE)))
        left = containers_of(made)

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "START_FAILED")
    assert "not ready within 2 s" in end.failure.message
    assert left == []


async def test_an_image_that_is_nowhere_fails_with_that_reason(server: FakeServer, worker: Worker) -> None:
    await server.deploy(Function(name="odd", image="127.0.0.1:1/no/such:image"))

    end = await server.end(await server.send(at("/", retry_policy=ONCE)))

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "IMAGE_NOT_FOUND")


async def test_instances_grow_to_the_maximum_and_share_the_work(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, concurrency=2, max_instances=2))

    ids = await server.send_all([at("/sleep/0.5") for _ in range(12)])
    ends = [await server.end(id_) for id_ in ids]

    assert all(end.state == api.INVOCATION_STATE_SUCCEEDED for end in ends)
    assert len({end.attempts[0].instance for end in ends}) == 2
    overlap = max(
        sum(1 for other in ends if other.attempts[0].start_us <= end.attempts[0].start_us < other.attempts[0].end_us)
        for end in ends
    )
    assert 2 <= overlap <= 4


async def test_a_new_revision_takes_over_and_the_old_instance_goes(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, env={"GREETING": "one"}, min_instances=1))
    first = await server.end(await server.send(at("/echo")))
    slow = await server.send(at("/sleep/2"))
    await server.event(slow, "running")

    await server.deploy(Function(name="odd", image=odd_image, env={"GREETING": "two"}, min_instances=1))
    second = await server.end(await server.send(at("/echo")))

    assert json.loads(first.result.payload.data)["environment"]["GREETING"] == "one"
    assert json.loads(second.result.payload.data)["environment"]["GREETING"] == "two"
    assert (first.attempts[0].function_revision, second.attempts[0].function_revision) == (1, 2)
    assert (await server.end(slow)).state == api.INVOCATION_STATE_SUCCEEDED
    await server.status(lambda status: [load.instances for load in status.functions] == [1])


async def test_limits_and_walls_are_set(server: FakeServer, worker: Worker, odd_image: str) -> None:
    function = Function(name="odd", image=odd_image)
    function.limits.memory_bytes = 64 * limits.MIB
    function.limits.cpu_millis = 500
    function.limits.pids = 50
    await server.deploy(function)

    root = await server.end(await server.send(at("/write/file", retry_policy=ONCE)))
    tmp = await server.end(await server.send(at("/write/tmp/file")))
    (container,) = containers_of(worker)
    host = json.loads(docker("inspect", container))[0]["HostConfig"]

    assert root.result.status_code == 403
    assert tmp.result.payload.data == b"written"
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 * limits.MIB, 500_000_000, 50)
    assert host["CapDrop"] == ["ALL"]
    assert host["NetworkMode"] == "homing"
    assert host["SecurityOpt"] == ["no-new-privileges"]


@pytest.fixture
def careless_image(base_image: str, tmp_path: Path) -> Iterator[str]:
    """Yield an image that names no user and declares a volume, as many do."""
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        'ARG BASE\nFROM $BASE\nCOPY odd.py /odd.py\nVOLUME /data\nCMD ["python3", "-u", "/odd.py"]\n', encoding="utf-8"
    )
    run = secrets.token_hex(4)
    tag, label = f"homing-test-careless:{run}", f"{LABEL}={run}"
    try:
        build(IMAGES / "odd", base=base_image, tag=tag, label=label, dockerfile=dockerfile)
        yield tag
    finally:
        remove_by_label(label)


async def test_a_careless_image_has_walls_all_the_same(server: FakeServer, worker: Worker, careless_image: str) -> None:
    await server.deploy(Function(name="odd", image=careless_image))

    who = await server.end(await server.send(at("/who")))
    filled = await server.end(await server.send(at("/fill/data/300", retry_policy=ONCE)))
    (container,) = containers_of(worker)
    shown = json.loads(docker("inspect", container))[0]

    assert who.result.payload.data == b"65534:65534"
    assert (filled.result.status_code, b"No space left" in filled.result.payload.data) == (507, True)
    assert [mount for mount in shown["Mounts"] if mount["Type"] == "volume"] == []
    host = shown["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (512 * limits.MIB, 512 * limits.MIB, 512)


async def test_containers_reach_no_other(server: FakeServer, worker: Worker, odd_image: str) -> None:
    for name in ("odd", "other"):
        await server.deploy(Function(name=name, image=odd_image))
        await server.end(await server.send(at("/", function=name)))
    addresses = {}
    for each in containers_of(worker):
        shown = json.loads(docker("inspect", each))[0]
        function = shown["Config"]["Labels"]["dev.homing.function"]
        addresses[function] = shown["NetworkSettings"]["Networks"]["homing"]["IPAddress"]

    itself = await server.end(await server.send(at(f"/reach/{addresses['odd']}/8080")))
    other = await server.end(await server.send(at(f"/reach/{addresses['other']}/8080", retry_policy=ONCE)))

    assert itself.result.payload.data == b"reached"
    assert other.result.status_code == 502


async def test_containers_of_a_killed_worker_are_removed_by_the_next_one(
    server: FakeServer, broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, min_instances=1))
    environment = {
        "HOMING_BROKER_URL": broker_url,
        "HOMING_DATA_DIR": str(tmp_path),
        "HOMING_RUNTIME": "docker",
        "PATH": "/usr/bin:/bin",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"from {app.__name__} import main; main()", env=environment,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    label = f"label=dev.homing.data-dir={tmp_path}"
    try:
        await server.status(lambda status: [load.instances for load in status.functions] == [1])
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    orphans = docker("ps", "--quiet", "--filter", label).split()
    assert len(orphans) == 1

    async with running_worker(server, broker_url, tmp_path, runtime="docker", stop_grace=1) as worker:
        left = docker("ps", "--quiet", "--all", "--filter", label).split()
        assert not set(left) & set(orphans)
        await server.end(await server.send(at("/")))
        assert containers_of(worker)

    assert docker("ps", "--quiet", "--all", "--filter", label) == ""
