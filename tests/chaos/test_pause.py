"""Paused work is held, shown as held, and goes on: whatever is killed meanwhile, and however often it is paused."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import function_pb2, function_service_pb2, function_service_pb2_grpc, invocation_service_pb2_grpc
from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as service
from support.processes import Cluster

PATIENCE = 60.0
TURNS = 120
"""More pauses than a work queue lets a message be handed out."""


class Api:
    """The API without an SDK."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.functions = function_service_pb2_grpc.FunctionServiceStub(channel)
        self.invocations = invocation_service_pb2_grpc.InvocationServiceStub(channel)

    def deploy(self, name: str, code: str, **fields: object) -> None:
        function = function_pb2.Function(
            name=name,
            command=function_pb2.Command(args=[sys.executable, "-c", code]),
            **fields,  # type: ignore[arg-type]
        )
        self.functions.DeployFunction(function_service_pb2.DeployFunctionRequest(function=function))

    def pause(self, name: str) -> function_pb2.Function:
        return self.functions.PauseFunction(function_service_pb2.PauseFunctionRequest(name=name)).function

    def resume(self, name: str) -> function_pb2.Function:
        return self.functions.ResumeFunction(function_service_pb2.ResumeFunctionRequest(name=name)).function

    def accept(self, name: str, *, due_us: int = 0) -> api.Invocation:
        spec = api.InvocationSpec(function=name)
        if due_us:
            spec.schedule_time.CopyFrom(Timestamp(seconds=due_us // 1_000_000, nanos=due_us % 1_000_000 * 1000))
        return self.invocations.InvokeAsync(service.InvokeAsyncRequest(spec=spec)).invocation

    def get(self, invocation_id: str) -> api.Invocation:
        return self.invocations.GetInvocation(service.GetInvocationRequest(id=invocation_id)).invocation

    def end(self, invocation_id: str) -> api.Invocation:
        return self.invocations.WaitInvocation(service.WaitInvocationRequest(id=invocation_id)).invocation

    def until(self, invocation_id: str, true: Callable[[api.Invocation], bool]) -> api.Invocation:
        deadline = time.monotonic() + PATIENCE
        while not true(invocation := self.get(invocation_id)):
            assert time.monotonic() < deadline, invocation
            time.sleep(0.05)
        return invocation


@contextlib.contextmanager
def calling(cluster: Cluster) -> Iterator[Api]:
    with grpc.insecure_channel(cluster.target) as channel:
        yield Api(channel)


def test_paused_work_outlasts_the_death_of_everything(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_server()
    cluster.start_worker()
    started = tmp_path / "started"
    code = f"open({str(started)!r}, 'a').write('x')"
    with calling(cluster) as homing:
        homing.deploy("held", code)
        homing.deploy("other", "")
        paused = homing.pause("held")
        assert (paused.paused, homing.pause("held")) == (True, paused)
        ids = []
        for _ in range(20):
            accepted = homing.accept("held")
            assert accepted.wait_reason == api.WAIT_REASON_PAUSED
            ids.append(accepted.id)
        later_us = time.time_ns() // 1000 + 1_000_000
        scheduled = homing.accept("held", due_us=later_us)
        assert scheduled.wait_reason == api.WAIT_REASON_SCHEDULED
        assert scheduled.wait_until.ToMicroseconds() == later_us
        ids.append(scheduled.id)
        request = service.InvokeRequest(spec=api.InvocationSpec(function="held"))
        with pytest.raises(grpc.RpcError) as caught:
            homing.invocations.Invoke(request, timeout=1.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    processes = (*cluster.servers, *cluster.workers)
    for process in processes:
        process.kill()
    for process in processes:
        process.start()
    with calling(cluster) as homing:
        assert homing.functions.GetFunction(function_service_pb2.GetFunctionRequest(name="held")).function.paused
        # Work of another function passes by.
        assert homing.end(homing.accept("other").id).state == api.INVOCATION_STATE_SUCCEEDED
        homing.until(scheduled.id, lambda invocation: invocation.wait_reason == api.WAIT_REASON_PAUSED)
        listed = homing.invocations.ListInvocations(
            service.ListInvocationsRequest(filter=api.InvocationFilter(functions=["held"]))
        ).invocations
        assert {one.wait_reason for one in listed if not one.sync} == {api.WAIT_REASON_PAUSED}
        short = service.WaitInvocationRequest(id=ids[0])
        short.timeout.FromMilliseconds(100)
        assert homing.invocations.WaitInvocation(short).invocation.wait_reason == api.WAIT_REASON_PAUSED
        assert not started.exists()

        assert not homing.resume("held").paused
        assert {homing.end(id_).state for id_ in ids} == {api.INVOCATION_STATE_SUCCEEDED}
        assert started.read_text() == "x" * len(ids), "each of them once, and the call that was too late never"


def test_however_often_it_is_paused_nothing_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_server()
    cluster.start_worker()
    gate = tmp_path / "gate"
    with calling(cluster) as homing:
        homing.deploy(
            "gated",
            f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)",
            max_instances=1,
        )
        running = homing.accept("gated").id
        homing.until(running, lambda invocation: invocation.state == api.INVOCATION_STATE_RUNNING)
        # The worker takes these in hand, and gives them back at each pause.
        waiting = [homing.accept("gated").id for _ in range(3)]
        for _ in range(TURNS):
            homing.pause("gated")
            homing.resume("gated")
        gate.touch()
        for id_ in (running, *waiting):
            ended = homing.end(id_)
            assert (ended.state, ended.attempt_count) == (api.INVOCATION_STATE_SUCCEEDED, 1), ended
