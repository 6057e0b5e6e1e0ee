"""Re-runs by raw gRPC, and what a cap on their rate let wait when everything was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as service
from homing.v1.function_pb2 import Command, Function
from homing.v1.function_service_pb2 import DeployFunctionRequest
from homing.v1.function_service_pb2_grpc import FunctionServiceStub
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing_core.clock import now_us
from support.bulk import outcome_of
from support.processes import Dev

RATE = 4.0
FAILED, SUCCEEDED = api.INVOCATION_STATE_FAILED, api.INVOCATION_STATE_SUCCEEDED


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(tmp_path)
    dev.start()
    yield dev
    if dev.running:
        dev.terminate()


@contextlib.contextmanager
def stub_of(dev: Dev) -> Iterator[InvocationServiceStub]:
    with grpc.insecure_channel(dev.target) as channel:
        yield InvocationServiceStub(channel)


def deploy(dev: Dev, *command: str) -> None:
    function = Function(name="check", command=Command(args=command))
    function.retry_policy.max_attempts = 1
    with grpc.insecure_channel(dev.target) as channel:
        FunctionServiceStub(channel).DeployFunction(DeployFunctionRequest(function=function))


def ended(stub: InvocationServiceStub, key: str) -> api.Invocation:
    return stub.WaitInvocation(service.WaitInvocationRequest(id=key)).invocation


def listed(stub: InvocationServiceStub, **selection: Any) -> list[api.Invocation]:
    request = service.ListInvocationsRequest(
        filter=api.InvocationFilter(**selection), order=service.INVOCATION_ORDER_OLDEST_FIRST
    )
    return list(stub.ListInvocations(request).invocations)


def refused(call: Any, request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    error: Any = caught.value
    code: grpc.StatusCode = error.code()
    return code


def test_capped_reruns_go_on_after_a_kill_and_no_faster(dev: Dev) -> None:
    deploy(dev, "false")
    with stub_of(dev) as stub:
        spec = api.InvocationSpec(function="check", labels={"lot": "9"})
        old = [stub.InvokeAsync(service.InvokeAsyncRequest(spec=spec)).invocation.id for _ in range(12)]
        assert {ended(stub, key).state for key in old} == {FAILED}
        deploy(dev, "cat")
        selection = api.InvocationFilter(labels={"lot": "9"})
        request = service.BulkRerunRequest(filter=selection, max_per_second=RATE, request_id="lot 9")
        begin_us = now_us()
        response = outcome_of(stub.BulkRerun(request))
        assert (response.matched, response.accepted) == (12, 12)
        waiting = service.RerunInvocationRequest(id=listed(stub, rerun_of=old[-1])[0].id)
        assert refused(stub.RerunInvocation, waiting) is grpc.StatusCode.FAILED_PRECONDITION
        assert refused(stub.RerunInvocation, service.RerunInvocationRequest(id="no")) is grpc.StatusCode.NOT_FOUND
        nothing = service.BulkRerunRequest(filter=api.InvocationFilter())
        assert refused(lambda request: next(stub.BulkRerun(request)), nothing) is grpc.StatusCode.INVALID_ARGUMENT
        ended(stub, listed(stub, rerun_of=old[2])[0].id)
    dev.kill()
    dev.start()

    with stub_of(dev) as stub:
        assert outcome_of(stub.BulkRerun(request)).accepted == 12
        new = [ended(stub, listed(stub, rerun_of=key)[0].id) for key in old]
        assert {one.state for one in new} == {SUCCEEDED}
        starts_us = [one.start_time.ToMicroseconds() for one in new]
        assert all(start_us >= begin_us + place / RATE * 1e6 for place, start_us in enumerate(starts_us))
        counts = stub.CountInvocations(service.CountInvocationsRequest(filter=selection)).counts
        assert [(one.state, one.count, one.more) for one in counts] == [(SUCCEEDED, 12, False), (FAILED, 12, False)]
        assert len(listed(stub, labels={"lot": "9"})) == 24, "none ran again twice"
