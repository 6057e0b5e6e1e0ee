"""Stopping, running again, pausing, logs and progress on the fake server, with both clients."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import homing
from homing import AttemptOutcome, Client, InvocationState, LogStream, WaitReason
from homing.testing import FakeCall, FakeServer
from support.sdk_driver import Driver


@pytest.fixture
def client(driver: Driver, homing_fake: FakeServer) -> Any:
    return driver.client()


def test_a_running_one_is_stopped(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    function = homing_fake.function("f").hold()
    handle = driver.do(client.invoke_async, "f")

    assert driver.do(handle.stop, reason="enough").state is InvocationState.STOPPING

    with pytest.raises(homing.InvocationStoppedError) as caught:
        driver.do(handle.result, timeout=10)
    record = caught.value.invocation
    assert record.stop_request is not None
    assert record.stop_request.reason == "enough"
    assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.STOPPED]
    with pytest.raises(homing.InvocationEndedError, match=f"{handle.id!r} has ended: it is STOPPED") as ended:
        driver.do(client.stop, handle.id)
    assert ended.value.state is InvocationState.STOPPED
    function.release()
    assert driver.do(client.get, handle.id).state is InvocationState.STOPPED


def test_a_stop_wins_over_what_the_function_answers_later(homing_fake: FakeServer) -> None:
    started, go_on = threading.Event(), threading.Event()

    def answer(_: FakeCall) -> object:
        started.set()
        return go_on.wait(10)

    homing_fake.function("f").answers(answer)
    with Client() as client:
        caller = threading.Thread(target=client.invoke_async, args=["f"])
        caller.start()
        assert started.wait(10)
        [record] = client.list_invocations()

        client.stop(record.id)

        go_on.set()
        caller.join()
        assert client.get(record.id).state is InvocationState.STOPPED


def test_an_ended_one_runs_again(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f").fails(400, times=1).answers(lambda call: call.text.upper())
    first = driver.do(client.invoke_async, "f", "one", labels={"job": "7"})

    same = driver.do(first.rerun, request_id="r1")
    again = driver.do(first.rerun, request_id="r1")
    assert (same.duplicate, again.duplicate) == (False, True)
    edited = driver.do(client.rerun, first.id, payload="two")

    assert (same.id, driver.do(same.result).text, driver.do(edited.result).text) == (again.id, "ONE", "TWO")
    record = driver.do(edited.describe)
    assert (record.rerun_of, record.labels) == (first.id, {"job": "7"})
    line = driver.rest(client.list_invocations(rerun_of=first.id))
    assert [one.id for one in line] == [edited.id, same.id]
    homing_fake.function("f").hold()
    running = driver.do(client.invoke_async, "f")
    with pytest.raises(homing.InvocationNotEndedError, match="has not ended: it is RUNNING"):
        driver.do(running.rerun)


def test_what_does_not_exist_is_not_found(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    for call in (client.stop, client.rerun):
        with pytest.raises(homing.NotFoundError, match="there is no invocation 'none'"):
            driver.do(call, "none")
    with pytest.raises(homing.NotFoundError, match="there is no invocation 'none'"):
        driver.next(client.logs("none"))
    for call in (client.functions.pause, client.functions.resume, client.functions.scale):
        with pytest.raises(homing.NotFoundError, match="there is no function 'none'"):
            driver.do(call, "none")


def test_many_are_counted_stopped_and_run_again(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("done")
    homing_fake.function("held").hold()
    homing_fake.function("paused")
    homing_fake.function("gone")
    driver.do(client.functions.pause, "paused")
    for name in ("done", "done", "held", "paused", "gone"):
        driver.do(client.invoke_async, name)
    driver.do(client.functions.delete, "gone")

    assert driver.do(client.count).by_state == {
        InvocationState.ENQUEUED: 1,
        InvocationState.RUNNING: 1,
        InvocationState.SUCCEEDED: 3,
    }
    names = ["done", "held", "paused", "gone"]
    assert driver.do(client.bulk_stop, function=names, dry_run=True) == homing.BulkStopped(
        matched=2, stopped=0, stopping=0
    )
    assert driver.do(client.bulk_stop, function=names) == homing.BulkStopped(matched=2, stopped=1, stopping=1)
    succeeded = {"states": [InvocationState.SUCCEEDED], "created_until": homing_fake.invocations()[-1].end_time}
    progress: list[homing.BulkRerun] = []
    done = driver.do(client.bulk_rerun, request_id="r1", on_progress=progress.append, **succeeded)
    assert progress == [homing.BulkRerun(matched=3, accepted=0, refused=0), done]
    assert done == homing.BulkRerun(matched=3, accepted=2, refused=1)
    assert driver.do(client.bulk_rerun, request_id="r1", **succeeded) == done
    with pytest.raises(homing.AlreadyExistsError, match="'r1' was used for another request"):
        driver.do(client.bulk_stop, request_id="r1", **succeeded)
    assert driver.do(client.bulk_rerun, dry_run=True, **succeeded).matched == 1, "what was run again is left out"
    assert driver.do(client.bulk_rerun, dry_run=True, include_rerun=True, **succeeded).matched == 3
    assert len(homing_fake.calls("done")) == 4
    for call in (client.bulk_stop, client.bulk_rerun):
        with pytest.raises(homing.InvalidRequestError) as caught:
            driver.do(call)
        assert [violation.field for violation in caught.value.violations] == ["filter"]


def test_a_paused_function_holds_what_is_accepted(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f").returns("ok")

    assert driver.do(client.functions.pause, "f").paused
    handle = driver.do(client.invoke_async, "f")
    record = driver.do(handle.describe)
    assert (record.state, record.wait_reason) == (InvocationState.ENQUEUED, WaitReason.PAUSED)
    driver.do(client.functions.deploy, name="f", image="f:2")
    assert driver.do(client.functions.get, "f").paused

    assert not driver.do(client.functions.resume, "f").paused
    assert driver.do(handle.result).text == "ok"
    assert driver.do(handle.describe).wait_reason is None
    assert driver.do(client.functions.scale, "f", max_instances=7).max_instances == 7


def test_what_waits_of_a_deleted_function_is_invalid(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f")
    driver.do(client.functions.pause, "f")
    handle = driver.do(client.invoke_async, "f")

    assert driver.do(client.functions.delete, "f") == 1
    with pytest.raises(homing.InvocationInvalidError):
        driver.do(handle.result)


def test_lines_are_read_and_followed(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    function = homing_fake.function("f").logs("one").logs("two", stderr=True).hold()
    handle = driver.do(client.invoke_async, "f")
    follower = handle.logs(follow=True)

    assert [driver.next(follower).text for _ in range(2)] == ["one", "two"]
    homing_fake.log(handle.id, "three")
    assert driver.next(follower).text == "three"
    driver.later(0.2, follower.close) if driver.asynchronous else threading.Timer(0.2, function.release).start()
    assert driver.rest(follower) == []
    function.release()
    assert [(line.text, line.stream) for line in driver.rest(handle.logs())] == [
        ("one", LogStream.STDOUT),
        ("two", LogStream.STDERR),
        ("three", LogStream.STDOUT),
    ]
    with pytest.raises(LookupError, match="there is no invocation 'none'"):
        homing_fake.log("none", "line")


def test_progress_and_transitions_are_watched(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    function = homing_fake.function("f").fails(503, times=1).hold()
    events = client.watch_results(include_transitions=True)
    if driver.asynchronous:
        driver.do(events._start)
    handle = driver.do(client.invoke_async, "f")

    homing_fake.progress(handle.id, 50, "half")
    function.release()
    seen = [driver.next(events).invocation for _ in range(5)]
    driver.do(events.close)

    assert [str(record.state) for record in seen] == ["ENQUEUED", "RUNNING", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert seen[1].progress is None
    assert seen[2].progress is not None
    assert (seen[2].progress.percent, seen[2].progress.text) == (50, "half")


def test_functions_are_changed_in_part_and_at_the_revision_that_is_expected(driver: Driver, client: Any) -> None:
    first = driver.do(client.functions.deploy, name="f", image="f:1", labels={"a": "b"}, expected_revision=0)
    assert first.revision == 1

    changed = driver.do(client.functions.update, "f", command=["cat"], expected_revision=1)
    assert (changed.image, changed.command, changed.labels, changed.revision) == (None, ("cat",), {"a": "b"}, 2)
    assert driver.do(client.functions.update, "f", labels={"a": "b"}) == changed, "nothing is new"
    assert driver.do(client.functions.update, "f", labels=None).labels == {}
    assert driver.do(client.functions.scale, "f", max_instances=2).revision == 4
    with pytest.raises(homing.RevisionMismatchError) as caught:
        driver.do(client.functions.update, "f", public=True, expected_revision=3)
    assert (caught.value.expected, caught.value.actual) == (3, 4)

    assert driver.do(client.functions.update, "g", url="http://localhost:1").name == "g"
    with pytest.raises(homing.NotFoundError):
        driver.do(client.functions.update, "h", public=True)
    with pytest.raises(homing.InvalidRequestError, match="must have one source"):
        driver.do(client.functions.update, "g", url=None)


def test_a_rerun_that_succeeds_takes_the_dead_letters_of_what_it_ran_again_away(
    driver: Driver, client: Any, homing_fake: FakeServer
) -> None:
    homing_fake.function("ill").fails(500)
    once = {"retry_policy": homing.RetryPolicy(max_attempts=1)}
    first = driver.do(client.invoke_async, "ill", **once)
    other = driver.do(client.invoke_async, "ill", **once)
    again = driver.do(client.rerun, first.id)
    homing_fake.function("ill").returns(b"well")
    driver.do(client.rerun, again.id)

    assert [letter.invocation_id for letter in driver.rest(client.dead_letters.list())] == [other.id]
