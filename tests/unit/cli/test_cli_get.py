"""The command that shows an invocation, against a real server that answers as told."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from homing.v1 import (
    invocation_pb2,
    invocation_service_pb2,
)
from support import records
from support.cli import homing, rows
from support.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("scripted_target")


def test_get_shows_the_record(scripted_server: ScriptedServer) -> None:
    record = records.invocation("FAILED", status_code=503, body="schön\n[bold]no markup[/bold]".encode())
    record.result.headers.add(name="x-seen", value="[b]twice[/b]")
    record.attempts[0].next_delay.CopyFrom(records.span(0.75))
    record.attempts[0].delay_reason = "BACKOFF"
    delivery = record.deliveries.add(
        id="d",
        kind=invocation_pb2.DELIVERY_KIND_CALLBACK,
        uri="http://localhost/hook",
        state=invocation_pb2.DELIVERY_STATE_DEAD,
    )
    delivery.attempts.add(number=1, status_code=500, failure=record.failure)
    scripted_server.script("GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=record))

    scripted_server.script(
        "ListInvocations",
        invocation_service_pb2.ListInvocationsResponse(
            invocations=[records.invocation(number=number) for number in (3, 2)]
        ),
    )

    result = homing("get", "some-id")

    assert result.exit_code == 0
    lines = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    assert ["state", "FAILED"] in lines
    assert ["failure", "it answered 503 [HTTP_STATUS]"] in lines
    attempt = lines[lines.index(["Attempts"]) + 2]
    assert (attempt[0], attempt[2:7]) == ("1", ["1 s", "FAILED", "503", "it answered 503", "0.75 s BACKOFF"])
    assert ["run again as", *(f"01935000-0000-7000-8000-00000000000{number}" for number in (3, 2))] in [
        [part for cell in line for part in (cell.split() if cell.startswith("0193") else [cell])] for line in lines
    ]
    assert ["History"] not in lines
    assert lines[lines.index(["Deliveries"]) + 2] == [
        "d", "CALLBACK", "http://localhost/hook", "DEAD", "1", "500", "it answered 503"
    ]  # fmt: skip
    assert lines[-6:] == [
        ["Result: status 503, 29 bytes of text/plain"],
        ["x-seen", "yes"],
        ["x-seen", "[b]twice[/b]"],
        [""],
        ["schön"],
        ["[bold]no markup[/bold]"],
    ]


def test_get_shows_chains_and_what_is_still_to_be_delivered(scripted_server: ScriptedServer) -> None:
    record = records.invocation("RUNNING")
    record.caused_by, record.depth = "01935000-0000-7000-8000-00000000000a", 2
    record.spec.on_success.add(uri="function:next")
    record.spec.on_success.add(uri="https://example.com/done")
    record.spec.on_failure.add(uri="amqp:failures/figlet")
    record.deliveries.add(
        id="d1",
        kind=invocation_pb2.DELIVERY_KIND_ON_SUCCESS,
        uri="function:next",
        state=invocation_pb2.DELIVERY_STATE_DELIVERED,
        caused="01935000-0000-7000-8000-00000000000b",
    )
    record.deliveries.add(
        id="d2",
        kind=invocation_pb2.DELIVERY_KIND_ON_SUCCESS,
        uri="https://example.com/done",
        state=invocation_pb2.DELIVERY_STATE_PENDING,
        next_attempt_time=records.stamp(records.CREATED),
    )
    scripted_server.script("GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=record))

    result = homing("get", "some-id")

    lines = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    assert ["caused by", "01935000-0000-7000-8000-00000000000a, depth 2"] in lines
    assert ["on success", "function:next https://example.com/done"] in lines
    assert ["on failure", "amqp:failures/figlet"] in lines
    first, second = lines[lines.index(["Deliveries"]) + 2 :][:2]
    assert first == ["d1", "ON_SUCCESS", "function:next", "DELIVERED", "0", "01935000-0000-7000-8000-00000000000b"]
    assert second[:5] == ["d2", "ON_SUCCESS", "https://example.com/done", "PENDING", "0"]
    assert re.fullmatch(r"20\d\d-.*", second[5])


def test_get_tells_why_it_waits(scripted_server: ScriptedServer) -> None:
    record = records.invocation("RETRYING")
    record.wait_reason = invocation_pb2.WAIT_REASON_BACKOFF
    record.wait_until.CopyFrom(records.stamp(records.CREATED))
    scripted_server.script("GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=record))

    assert re.search(r"waits for +BACKOFF until 20\d\d-", homing("get", "some-id").stdout)


def test_get_tells_its_whole_history(scripted_server: ScriptedServer) -> None:
    record = records.invocation("STOPPING")
    record.rerun_of = "0192"
    record.progress.percent = 40
    record.progress.text = "page 4 of 10"
    record.stop_request.CopyFrom(
        invocation_pb2.StopRequest(time=records.stamp(records.CREATED), caller="me", reason="enough")
    )
    told: list[tuple[float, str, str]] = [
        (0, "ACCEPTED", ""),
        (0.0125, "RUNNING", ""),
        (59.9, "LEASED", ""),
        (3725, "STOP_REQUESTED", "by me: enough"),
    ]
    for after, name, detail in told:
        record.events.add(
            time=records.stamp(records.CREATED + timedelta(seconds=after)),
            type=invocation_pb2.InvocationEventType.Value(f"INVOCATION_EVENT_TYPE_{name}"),
            attempt=int(name == "RUNNING"),
            detail=detail,
        )
    scripted_server.script("GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=record))

    lines = rows(homing("get", "some-id", "--events"))

    assert ["progress", "40 % page 4 of 10"] in lines
    assert ["runs again", "0192"] in lines
    assert next(line[1] for line in lines if line[0] == "stop asked for").endswith(" by me: enough")
    history = lines[lines.index(["History"]) + 1 :]
    assert history == [
        ["AFTER", "EVENT", "ATTEMPT", "WORKER", "DETAIL"],
        ["+0.000 s", "ACCEPTED"],
        ["+0.013 s", "RUNNING", "1"],
        ["+59.900 s", "LEASED"],
        ["+1 h 2 min 5 s", "STOP_REQUESTED", "by me: enough"],
    ]
