"""Call ids: what functions, receivers and records show, through a chain of invocations."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

import homing
from homing import Client, InvalidRequestError, InvocationState
from support.cli import program
from support.processes import Dev
from support.receiver import receiver

SHOW = ["sh", "-c", 'printf "%s %s" "$Http_X_Call_Id" "$Http_X_Homing_Invocation_Id"']


@pytest.fixture(scope="module", params=["rabbitmq", "embedded"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str]]:
    """A client, and the target, of two workers on RabbitMQ, or of `homing dev`."""
    with contextlib.ExitStack() as stack:
        if request.param == "rabbitmq":
            cluster = request.getfixturevalue("shared_cluster")
            cluster.start_worker()
            target = cluster.target
        else:
            dev = Dev(tmp_path_factory.mktemp("dev"))
            dev.start()
            stack.callback(dev.terminate)
            target = dev.target
        made = stack.enter_context(Client(target, timeout=60))
        for name in ("show", "next"):
            made.functions.deploy(name=name, command=SHOW)
        yield made, target


@pytest.fixture
def client(served: tuple[Client, str]) -> Client:
    return served[0]


def ids(client: Client, call_id: str) -> list[str]:
    return [record.id for record in client.list_invocations(call_id=call_id, order="oldest_first")]


def test_it_is_what_the_function_and_the_record_show_and_what_finds_the_record(client: Client) -> None:
    answer = client.invoke("show", call_id="order-1")
    call = client.invoke_async("show", call_id="order-1")

    assert answer.text == f"order-1 {answer.invocation.id}"
    assert call.result(timeout=60).text == f"order-1 {call.id}"
    assert {client.get(key).call_id for key in (answer.invocation.id, call.id)} == {"order-1"}
    assert ids(client, "order-1") == [answer.invocation.id, call.id]
    assert ids(client, "order-2") == []


def test_without_one_it_is_the_id(client: Client) -> None:
    call = client.invoke_async("show")

    assert call.result(timeout=60).text == f"{call.id} "
    assert client.get(call.id).call_id == call.id
    assert ids(client, call.id) == [call.id]


def test_what_an_outcome_causes_inherits_it_and_receivers_are_shown_it(client: Client) -> None:
    with receiver(statuses=[200]) as (url, received), client.watch_results(function="next") as results:
        for call_id in ("chain-1", None):
            call = client.invoke_async("show", call_id=call_id, callback_url=url, on_success=["function:next", url])
            requests = [received.get(timeout=60) for _ in range(2)]
            caused = next(event.invocation for event in results if event.invocation.caused_by == call.id)
            shown = call_id or call.id

            assert {headers["x-call-id"] for _, headers, _ in requests} == {shown}
            (body,) = [body for _, headers, body in requests if headers["content-type"] == "application/json"]
            envelope = homing.parse_envelope(body)
            assert (envelope.id, envelope.call_id) == (call.id, shown)
            assert caused.call_id == shown
            assert caused.result is not None
            assert caused.result.data.decode() == f"{shown} {caused.id}"
            assert ids(client, shown) == [call.id, caused.id]


def test_all_that_show_one_are_stopped_together(client: Client) -> None:
    waiting = [client.invoke_async("show", call_id="batch-1", delay=600).id for _ in range(3)]
    other = client.invoke_async("show", call_id="batch-2", delay=600)

    assert client.bulk_stop(call_id="batch-1").stopped == 3
    assert [client.get(key).state for key in waiting] == [InvocationState.STOPPED] * 3
    assert other.describe().state is InvocationState.SCHEDULED
    assert client.bulk_stop(call_id=other.id).matched == 0
    assert client.bulk_stop(call_id="batch-2").stopped == 1


@pytest.mark.parametrize("bad", ["a b", "\u00e9", "a\tb", "x" * 129])
def test_a_bad_one_is_refused(client: Client, bad: str) -> None:
    with pytest.raises(InvalidRequestError, match="call_id"):
        client.invoke_async("show", call_id=bad)
    with pytest.raises(InvalidRequestError, match="call_id"):
        client.invoke("show", call_id=bad)


def test_it_is_a_part_of_what_a_request_id_stands_for(client: Client) -> None:
    first = client.invoke_async("show", call_id="one", request_id="same")

    assert client.invoke_async("show", call_id="one", request_id="same").id == first.id
    with pytest.raises(homing.AlreadyExistsError):
        client.invoke_async("show", call_id="other", request_id="same")


def test_the_command_line_gives_it_and_lists_by_it(served: tuple[Client, str]) -> None:
    target = served[1]
    done = program("invoke", "show", "--call-id", "typed-1", target=target)
    listed = program("list", "--call-id", "typed-1", "--json", target=target)
    (record,) = [json.loads(line) for line in listed.stdout.splitlines()]

    assert done.stdout.decode() == f"typed-1 {record['id']}"
    assert b"typed-1" in program("get", record["id"], target=target).stdout
