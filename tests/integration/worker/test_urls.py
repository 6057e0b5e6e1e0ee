"""Functions that are URLs: workers call them where the operator allows it, whatever a server let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing.v1.invocation_pb2 import InvocationSpec
from support.fake_server import FakeServer
from support.receivers import receiving, take
from support.workers import running_worker


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_function_on_this_host_is_called_only_where_that_is_allowed(
    server: FakeServer, broker_url: str, tmp_path: Path, host: str
) -> None:
    async with receiving(take) as function:
        await server.deploy(Function(name="here", url=function.url.replace("127.0.0.1", host)))
        async with running_worker(server, broker_url, tmp_path, function_networks="10.0.0.0/8"):
            refused = await server.end(await server.send(InvocationSpec(function="here")))
        assert function.requests == []
        async with running_worker(server, broker_url, tmp_path, function_networks="127.0.0.0/8,::1/128"):
            called = await server.end(await server.send(InvocationSpec(function="here")))
        assert len(function.requests) == 1

    assert refused.state == api.INVOCATION_STATE_FAILED
    assert (refused.failure.reason, refused.failure.retryable) == ("TARGET_FORBIDDEN", False)
    assert "127.0.0.1" in refused.failure.message or "::1" in refused.failure.message
    assert "HOMING_FUNCTION_NETWORKS" in refused.failure.message
    assert called.state == api.INVOCATION_STATE_SUCCEEDED
