"""What is said twice: delays under a request id, and re-runs of what failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest

import homing
from homing import AlreadyExistsError, Client, InvocationRequest, InvocationState
from support.processes import Dev

FAILED = [InvocationState.FAILED]


@pytest.fixture(scope="module", params=["rabbitmq", "embedded"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of two workers on RabbitMQ, or of `homing dev`."""
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
        yield stack.enter_context(Client(target, timeout=60))


def test_p7_a_delay_said_twice_under_a_request_id_is_one_invocation(client: Client) -> None:
    client.functions.deploy(name="later", command=["cat"])
    first = client.invoke_async("later", "x", request_id="order", delay=60)
    again = client.invoke_async("later", "x", request_id="order", delay=60)
    (batched,) = client.invoke_batch([InvocationRequest(function="later", payload="x", request_id="order", delay=60)])

    assert isinstance(batched, homing.InvocationHandle)
    assert (again.id, again.duplicate, batched.id) == (first.id, True, first.id)
    with pytest.raises(AlreadyExistsError):
        client.invoke_async("later", "x", request_id="order", delay=61)
    record = first.describe()
    assert record.state is InvocationState.SCHEDULED
    assert record.create_time is not None
    assert record.schedule_time == record.create_time + timedelta(seconds=60)
    first.stop()


def test_many_that_failed_run_again_once_each_time_and_a_cure_takes_the_dead_letter(client: Client) -> None:
    client.functions.deploy(name="ill", command=["false"])
    for _ in range(2):
        client.invoke_async("ill", retry_policy=homing.RetryPolicy(max_attempts=1)).wait(60)

    def rerun(*, include_rerun: bool = False) -> int:
        accepted = client.bulk_rerun(function="ill", states=FAILED, include_rerun=include_rerun).accepted
        for record in client.list_invocations(function="ill"):
            client.handle(record.id).wait(60)
        return accepted

    assert [rerun() for _ in range(3)] == [2, 2, 2]
    assert rerun(include_rerun=True) == 8
    letters = [letter.invocation_id for letter in client.dead_letters.list(function="ill")]
    assert len(letters) == 16
    client.functions.deploy(name="ill", command=["true"])
    leaves = client.bulk_rerun(function="ill", states=FAILED, dry_run=True).matched
    assert rerun() == leaves
    assert list(client.dead_letters.list(function="ill")) == []
