"""A worker that runs commands, on a real RabbitMQ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import Payload
from support.fake_server import FakeServer
from support.workers import running_worker


def python(name: str, code: str, **fields: Any) -> Function:
    return Function(name=name, command=Command(args=[sys.executable, "-c", code]), **fields)


async def test_work_is_run_reported_and_acknowledged(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("upper", "import sys; sys.stdout.write(sys.stdin.read().upper())"))

    async with running_worker(server, broker_url, tmp_path) as worker:
        id_ = await server.send(
            InvocationSpec(function="upper", payload=Payload(content_type="text/plain", data=b"later"))
        )
        end = await server.end(id_)
        await server.drained("upper")

    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    assert end.result.payload == Payload(content_type="text/plain", data=b"LATER")
    (attempt,) = end.attempts
    assert (attempt.ordinal, attempt.outcome, attempt.status_code) == (1, api.ATTEMPT_OUTCOME_SUCCEEDED, 200)
    assert (attempt.worker, attempt.function_revision) == (worker.name, 1)
    assert 0 < attempt.start_us <= attempt.end_us
    running = await server.event(id_, "running")
    assert running.running.end_us == 0
    assert (running.token.generation, running.token.delivery) == (1, 0)
