"""Functions come, change and go; the work that a deleted one leaves behind ends, and nothing else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from homing.v1 import function_pb2, policy_pb2
from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.guard import Guard
from homing_core.lifecycle import Custody, State
from homing_core.wire.v1 import Control, FunctionLoad, FunctionState, WorkerStatus, WorkMessage
from homing_server.admin import drain as drain_module
from homing_server.admin.deployment import Deployment
from homing_server.cluster import presence as presence_module
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.control import ControlChannel
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.invocations import reconciliation as reconciliation_module
from homing_server.invocations.reconciliation import Reconciliation
from homing_server.invocations.recorder import Recorder
from homing_server.metrics import Metrics
from homing_server.store.dispatch import claim_work
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.functions import mark_deleted, put_function
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub
from support.connections import connect
from support.inbox import eventually, until
from support.reporter import Reporter
from support.scripted_broker import Handed, ScriptedBroker
from support.store import (
    LOOPBACK_GUARD,
    accept_all,
    accept_sent,
    deliveries_of,
    life,
    make_draft,
    make_spec,
    opened,
    read,
    record,
    row_of,
)


class Bench:
    """The parts of a server that have to do with functions."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        self.database = database
        self.broker = ScriptedBroker()
        self.catalog = Catalog(database)
        self.presence = Presence()
        self.metrics = Metrics()
        self.announced: list[CommitEffects] = []
        hub = WatchHub(database)
        self.control = control = ControlChannel(
            "server",
            self.broker,
            catalog=self.catalog,
            hub=hub,
            keyring=Keyring(database),
            presence=self.presence,
            registry=WorkerRegistry(database),
            tasks=tasks,
        )
        self.deployment = Deployment(
            database,
            self.broker,
            self.catalog,
            control,
            urls=LOOPBACK_GUARD,
            deliveries=Guard(exchanges=["/q"]),
            tasks=tasks,
            announce=self.announced.append,
        )
        recorder = Recorder(database, self.broker, self.metrics, announce=self.announced.append)
        connect(self.broker, control, self.deployment, recorder)
        self.conservation = Reconciliation(
            database,
            self.broker,
            self.metrics,
            catalog=self.catalog,
            control=control,
            presence=self.presence,
            recorder=recorder,
            interval=0.01,
        )
        tasks.repeat(self.deployment.settle_group, pause=0.05)

    def hand_dead(self, key: str, generation: int = 1, *, reason: str) -> Handed:
        message = WorkMessage(invocation_id=key, generation=generation, spec=make_spec())
        (handed,) = self.broker.dead[0].hand(message.SerializeToString(), dead_reason=reason)
        return handed

    async def end_of(self, key: str) -> tuple[State, str]:
        invocation = await read(self.database, key)
        return State(invocation.state), invocation.failure.reason


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(drain_module, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(reconciliation_module, "_ON_ITS_WAY_SECONDS", 0.0)
    monkeypatch.setattr(reconciliation_module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(reconciliation_module, "_COUNT_SHARE", 1e9)
    monkeypatch.setattr(presence_module, "CONTROL_INTERVAL", 0.0)
    async with opened(tmp_path) as database, Tasks() as tasks:
        bench = Bench(database, tasks)
        await bench.catalog.load()
        await bench.broker.start()
        yield bench


# --- Deploying


async def test_every_change_is_a_new_revision_and_the_same_again_is_none(bench: Bench) -> None:
    wanted = function_pb2.Function(name="figlet", image="figlet:1")
    first, created = await bench.deployment.deploy(wanted)
    assert (created, first.revision, bench.broker.opened) == (True, 1, ["figlet"])
    again, created = await bench.deployment.deploy(wanted)
    assert (created, again) == (False, first)
    wanted.env["A"] = "1"
    changed, created = await bench.deployment.deploy(wanted)
    assert (created, changed.revision, changed.create_time) == (False, 2, first.create_time)
    assert await bench.catalog.get("figlet") == changed
    told = [Control.FromString(body).function.function.revision for body in bench.broker.control]
    assert told == [1, 1, 2]


async def test_a_mask_sets_what_it_names_and_leaves_the_rest(bench: Bench) -> None:
    first, _ = await bench.deployment.deploy(
        function_pb2.Function(name="figlet", image="figlet:1", labels={"a": "1"}, max_instances=3)
    )
    await bench.deployment.pause("figlet", paused=True)
    changed, created = await bench.deployment.deploy(
        function_pb2.Function(name="figlet", image="figlet:2"), paths=["image", "max_instances"]
    )
    assert (created, changed.revision, changed.create_time, changed.paused) == (False, 3, first.create_time, True)
    assert (changed.image, dict(changed.labels), changed.max_instances) == ("figlet:2", {"a": "1"}, 0)
    again, _ = await bench.deployment.deploy(
        function_pb2.Function(name="figlet", image="figlet:2"), paths=["image", "max_instances"]
    )
    assert again == changed, "the same again is no revision"
    assert await bench.catalog.get("figlet") == changed

    # What comes of it has to be a function as a whole.
    for part, path, wrong in (
        (function_pb2.Function(name="figlet"), "image", "must have one source"),
        (function_pb2.Function(name="figlet", min_instances=9), "min_instances", "min_instances: must be from 0 to 4"),
        (function_pb2.Function(name="figlet", secrets=["none"]), "secrets", "there is no secret 'none'"),
    ):
        with pytest.raises(ApiError, match=wrong) as caught:
            await bench.deployment.deploy(part, paths=[path])
        assert caught.value.code is Code.INVALID_ARGUMENT
    assert await bench.catalog.get("figlet") == changed


async def test_a_mask_makes_a_new_function_where_it_names_a_source(bench: Bench) -> None:
    made, created = await bench.deployment.deploy(
        function_pb2.Function(name="figlet", image="figlet:1"), paths=["image"]
    )
    assert (created, made.revision, made.image) == (True, 1, "figlet:1")
    with pytest.raises(ApiError, match="there is no function 'figlte'") as caught:
        await bench.deployment.deploy(function_pb2.Function(name="figlte", public=True), paths=["public"])
    assert caught.value.code is Code.NOT_FOUND

    # Of one that was deleted nothing stays.
    await bench.deployment.deploy(
        function_pb2.Function(name="figlet", on_failure=[policy_pb2.Destination(uri="amqp:/q")]), paths=["on_failure"]
    )
    await bench.deployment.delete("figlet")
    with pytest.raises(ApiError, match="there is no function 'figlet'"):
        await bench.deployment.deploy(function_pb2.Function(name="figlet", public=True), paths=["public"])
    again, created = await bench.deployment.deploy(function_pb2.Function(name="figlet", url="http://x"), paths=["url"])
    assert (created, again.revision, list(again.on_failure)) == (True, 4, [])


async def test_a_revision_that_is_expected_has_to_be_there(bench: Bench) -> None:
    async def refused(expected: int, actual: int, *, paths: list[str] | None = None) -> None:
        wanted = function_pb2.Function(name="figlet", image="figlet:9")
        with pytest.raises(ApiError) as caught:
            await bench.deployment.deploy(wanted, paths=paths, expected_revision=expected)
        assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "REVISION_MISMATCH")
        assert caught.value.metadata == {"function": "figlet", "expected": str(expected), "actual": str(actual)}

    await refused(1, 0)
    wanted = function_pb2.Function(name="figlet", image="figlet:1")
    first, created = await bench.deployment.deploy(wanted, expected_revision=0)
    assert (created, first.revision) == (True, 1)
    await refused(0, 1)
    await refused(2, 1, paths=["image"])
    changed, _ = await bench.deployment.deploy(
        function_pb2.Function(name="figlet", public=True), paths=["public"], expected_revision=1
    )
    assert (changed.public, changed.revision) == (True, 2)
    await refused(1, 2)
    await bench.deployment.delete("figlet")
    await refused(3, 0)
    again, created = await bench.deployment.deploy(wanted, expected_revision=0)
    assert (created, again.revision) == (True, 4)
    assert await bench.catalog.get("figlet") == again


async def test_a_pause_outlasts_changes_and_ends_with_a_resumption_or_a_deletion(bench: Bench) -> None:
    first = await bench.deployment.pause("resize", paused=True)
    assert (first.paused, first.revision) == (True, 2)
    assert await bench.deployment.pause("resize", paused=True) == first, "again it changes nothing"
    changed, _ = await bench.deployment.deploy(function_pb2.Function(name="resize", image="resize:2", paused=False))
    assert (changed.paused, changed.revision) == (True, 3)
    assert bench.catalog.is_paused("resize")
    resumed = await bench.deployment.pause("resize", paused=False)
    assert (resumed.paused, resumed.revision, resumed.create_time) == (False, 4, first.create_time)
    assert not bench.catalog.is_paused("resize")
    told = [Control.FromString(body).function.function for body in bench.broker.control]
    assert [(one.revision, one.paused) for one in told] == [(2, True), (2, True), (3, True), (4, False)]

    await bench.deployment.pause("resize", paused=True)
    await bench.deployment.delete("resize")
    again, _ = await bench.deployment.deploy(function_pb2.Function(name="resize", image="resize:2"))
    assert not again.paused
    for unknown in ("nothing", ""):
        with pytest.raises(ApiError, match="there is no function"):
            await bench.deployment.pause(unknown, paused=True)


async def test_scaling_changes_the_bounds_and_is_checked_as_deploying_is(bench: Bench) -> None:
    scaled = await bench.deployment.scale("resize", min_instances=2, max_instances=3)
    assert (scaled.min_instances, scaled.max_instances, scaled.image, scaled.revision) == (2, 3, "resize:1", 2)
    assert (await bench.deployment.scale("resize", max_instances=5)).min_instances == 2
    assert await bench.deployment.scale("resize") == await bench.catalog.get("resize")
    before = await bench.catalog.get("resize")
    for least, most, wrong in ((6, None, "min_instances: must be from 0 to 5"), (None, 101, "max_instances: must be")):
        with pytest.raises(ApiError, match=wrong) as caught:
            await bench.deployment.scale("resize", min_instances=least, max_instances=most)
        assert caught.value.code is Code.INVALID_ARGUMENT
    assert await bench.catalog.get("resize") == before
    await bench.catalog.load()
    assert await bench.catalog.get("resize") == before, "nor has the store taken it"
    with pytest.raises(ApiError, match="there is no function 'nothing'"):
        await bench.deployment.scale("nothing", min_instances=1)


async def test_what_changed_while_there_was_no_connection_is_told_at_the_next_one(bench: Bench) -> None:
    bench.broker.lose()
    await bench.deployment.pause("resize", paused=True)
    assert bench.broker.control == []
    await bench.broker.start()
    ping = asyncio.create_task(bench.control.ping())
    await until(lambda: len(bench.broker.control) == 2)
    ping.cancel()
    told = Control.FromString(bench.broker.control[0]).function.function
    assert (told.name, told.paused) == ("resize", True)


async def test_deployed_after_a_deletion_goes_on_from_its_revision(bench: Bench) -> None:
    await bench.deployment.delete("resize")
    with pytest.raises(ApiError, match="there is no function 'resize'"):
        await bench.catalog.get("resize")
    again, created = await bench.deployment.deploy(function_pb2.Function(name="resize", image="resize:1"))
    assert (created, again.revision) == (True, 3)
    assert await bench.catalog.get("resize") == again


async def test_what_another_server_has_just_deployed_or_deployed_again_is_known(bench: Bench) -> None:
    elsewhere = Catalog(bench.database)
    await bench.deployment.deploy(function_pb2.Function(name="figlet", image="figlet:1"))
    assert (await elsewhere.get("figlet")).image == "figlet:1"

    deleted = function_pb2.Function(name="figlet", revision=2)
    await bench.deployment.delete("figlet")
    elsewhere.learn(FunctionState(function=deleted, deleted=True))
    with pytest.raises(ApiError, match="there is no function 'figlet'"):
        await elsewhere.get("figlet")
    await bench.deployment.deploy(function_pb2.Function(name="figlet", image="figlet:2"))
    assert (await elsewhere.get("figlet")).image == "figlet:2"


async def test_deletion_ends_what_waits_and_lets_run_what_runs(bench: Bench) -> None:
    waiting = [make_draft(make_spec(callback="http://127.0.0.1/")) for _ in range(3)]
    await accept_all(bench.database, *waiting)
    running, queued, retrying = await accept_sent(bench.database, 3)
    worker = Reporter(1, invocation_id=running, time_us=now_us())
    again = Reporter(1, invocation_id=retrying, time_us=now_us())
    await record(bench.database, worker.running(), again.running(), again.deferred(due_us=now_us()))
    bench.broker.depths["resize"] = 1
    assert await bench.deployment.delete("resize") == 4
    for draft in waiting:
        assert await bench.end_of(draft.id) == (State.INVALID, "FUNCTION_DELETED")
        assert len(await deliveries_of(bench.database, draft.id)) == 1
    assert await bench.end_of(retrying) == (State.FAILED, "FUNCTION_DELETED"), "it has run"
    # The queue is drained by the server itself.
    await until(lambda: "resize" in bench.broker.taken)
    body = WorkMessage(invocation_id=queued, generation=1, spec=make_spec()).SerializeToString()
    (message,) = bench.broker.taken["resize"].hand(body)
    await until(lambda: message.fate == "acked")
    assert await bench.end_of(queued) == (State.INVALID, "FUNCTION_DELETED")
    bench.broker.depths["resize"] = 0
    await until(lambda: bench.broker.taken["resize"].cancelled)
    assert (await read(bench.database, running)).state == api.INVOCATION_STATE_RUNNING
    await record(bench.database, worker.ended(State.SUCCEEDED))
    assert (await read(bench.database, running)).state == api.INVOCATION_STATE_SUCCEEDED
    with pytest.raises(ApiError) as caught:
        await bench.deployment.delete("resize")
    assert caught.value.code is Code.NOT_FOUND


async def test_a_drain_gives_back_the_work_of_a_later_function_and_ends(bench: Bench) -> None:
    (old,) = await accept_sent(bench.database, 1)
    bench.broker.depths["resize"] = 2
    await bench.deployment.delete("resize")
    await until(lambda: "resize" in bench.broker.taken)
    drained = bench.broker.taken["resize"]
    # Another server deploys it, and its word has not come yet.
    with bench.database.writing() as connection:
        function, _ = put_function(connection, function_pb2.Function(name="resize", image="resize:2"), now_us=now_us())
    (new,) = await accept_sent(bench.database, 1)

    def message(key: str, revision: int) -> bytes:
        spec = make_spec()
        return WorkMessage(invocation_id=key, generation=1, spec=spec, function_revision=revision).SerializeToString()

    ended, kept = drained.hand(message(old, 1), message(new, function.revision))

    await until(lambda: drained.cancelled and kept.fate == "requeued" and ended.fate == "acked")
    assert await bench.end_of(old) == (State.INVALID, "FUNCTION_DELETED")
    assert (await read(bench.database, new)).state == api.INVOCATION_STATE_ENQUEUED


async def test_what_was_published_into_a_queue_that_is_being_removed_is_published_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    new: list[str] = []

    async def close_function(name: str) -> bool:
        # Another server deploys it and publishes, after it was seen that the queue is empty.
        with bench.database.writing() as connection:
            put_function(connection, function_pb2.Function(name=name, image="resize:2"), now_us=now_us())
        new.extend(await accept_sent(bench.database, 1))
        return True

    monkeypatch.setattr(bench.broker, "close_function", close_function)
    with capture_logs() as logs:
        await bench.deployment.delete("resize")
        await until(lambda: any(line["event"] == "work_of_removed_queue_taken_back" for line in logs))

    with bench.database.writing() as connection:
        claimed = claim_work(connection, "resize", now_us=now_us(), most=10, most_bytes=10**6)
    assert [(work.message.invocation_id, work.message.generation) for work in claimed.work] == [(new[0], 2)]


async def test_what_was_accepted_before_a_deletion_ends_though_its_name_was_deployed_again(bench: Bench) -> None:
    waiting, dispatched = make_draft(), make_draft()
    await accept_all(bench.database, waiting)
    with bench.database.writing() as connection:
        mark_deleted(connection, "resize")
        put_function(connection, function_pb2.Function(name="resize", image="resize:2"), now_us=now_us())
    await accept_all(bench.database, dispatched)

    with bench.database.writing() as connection:
        claimed = claim_work(connection, "resize", now_us=now_us(), most=10, most_bytes=10**6)

    assert [(work.message.invocation_id, work.message.function_revision) for work in claimed.work] == [
        (dispatched.id, 3)
    ]
    assert await bench.end_of(waiting.id) == (State.INVALID, "FUNCTION_DELETED")


async def test_draining_goes_on_over_the_next_connection(bench: Bench) -> None:
    (key,) = await accept_sent(bench.database, 1)
    bench.broker.depths["resize"] = 1
    await bench.deployment.delete("resize")
    await until(lambda: "resize" in bench.broker.taken)
    before = bench.broker.taken.pop("resize")
    bench.broker.lose()
    await bench.broker.start()
    await until(lambda: "resize" in bench.broker.taken)
    body = WorkMessage(invocation_id=key, generation=1, spec=make_spec()).SerializeToString()
    (message,) = bench.broker.taken["resize"].hand(body)
    await until(lambda: message.fate == "acked" and before.cancelled)
    assert await bench.end_of(key) == (State.INVALID, "FUNCTION_DELETED")
    bench.broker.depths["resize"] = 0

    async def drained() -> bool:
        return not await bench.catalog.load()

    await eventually(drained, wanted=True)


# --- Dead work


@pytest.mark.parametrize(
    ("dead_reason", "end"),
    [("expired", (State.EXPIRED, "EXPIRED")), ("delivery_limit", (State.FAILED, "POISON"))],
)
async def test_dead_work_ends_its_invocation(bench: Bench, dead_reason: str, end: tuple[State, str]) -> None:
    (key,) = await accept_sent(bench.database, 1, callback="http://127.0.0.1/")
    message = bench.hand_dead(key, reason=dead_reason)
    await until(lambda: message.fate == "acked")
    assert await bench.end_of(key) == end
    assert bench.announced[-1].ended == {key: end[0]}
    assert len(await deliveries_of(bench.database, key)) == 1


async def test_expired_at_the_broker_after_it_had_started_goes_again(bench: Bench) -> None:
    (key,) = await accept_sent(bench.database, 1)
    await record(bench.database, Reporter(1, invocation_id=key, time_us=now_us()).running())
    message = bench.hand_dead(key, reason="expired")
    await until(lambda: message.fate == "acked")
    row = await row_of(bench.database, key)
    assert (row.state, row.custody) == (State.RETRYING, Custody.STORE)


async def test_p3_dead_work_of_an_earlier_hand_over_ends_nothing(bench: Bench) -> None:
    draft = make_draft(sent=True)
    await accept_all(bench.database, draft)
    worker = Reporter(1, invocation_id=draft.id, time_us=now_us())
    await record(bench.database, worker.requeued())
    message = bench.hand_dead(draft.id, 2, reason="delivery_limit")
    await until(lambda: message.fate == "acked")
    done = (await accept_sent(bench.database, 1))[0]
    await record(bench.database, *life(done))
    late = bench.hand_dead(done, reason="delivery_limit")
    await until(lambda: late.fate == "acked")
    assert (await read(bench.database, draft.id)).state == api.INVOCATION_STATE_ENQUEUED
    assert (await read(bench.database, done)).state == api.INVOCATION_STATE_SUCCEEDED


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
async def test_of_two_dead_messages_the_later_hand_over_counts(bench: Bench, order: tuple[int, int]) -> None:
    (key,) = await accept_sent(bench.database, 1)
    await record(bench.database, Reporter(2, invocation_id=key, time_us=now_us()).dequeued())
    bodies = [
        WorkMessage(invocation_id=key, generation=generation, spec=make_spec()).SerializeToString()
        for generation in order
    ]
    messages = bench.broker.dead[0].hand(*bodies, dead_reason="delivery_limit")
    await until(lambda: all(message.fate == "acked" for message in messages))
    assert await bench.end_of(key) == (State.FAILED, "POISON")


async def test_dead_work_is_given_back_while_the_store_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = await accept_sent(bench.database, 1)
    write = Database.write

    async def broken(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(Database, "write", broken)
    message = bench.hand_dead(key, reason="expired")
    await until(lambda: message.fate == "requeued")
    monkeypatch.setattr(Database, "write", write)
    again = bench.hand_dead(key, reason="expired")
    (garbage,) = bench.broker.dead[0].hand(b"\xff")
    await until(lambda: again.fate == garbage.fate == "acked")
    assert await bench.end_of(key) == (State.EXPIRED, "EXPIRED")


# --- Reconciliation


async def test_p5_drift_is_zero_until_something_is_lost_and_then_it_is_seen(bench: Bench) -> None:
    def gauge(name: str, **labels: str) -> float | None:
        return bench.metrics.registry.get_sample_value(f"homing_{name}", labels)

    keys = await accept_sent(bench.database, 10)
    await accept_all(bench.database, make_draft())
    await record(bench.database, *life(keys[0]))
    bench.broker.depths["resize"] = 9
    await bench.conservation.measure()
    assert gauge("conservation_record_drift") == 0
    assert gauge("conservation_broker_drift", function="resize") == 0
    assert gauge("invocations", state="ENQUEUED") == 10
    assert gauge("invocations", state="SUCCEEDED") == 1
    settled = gauge("conservation_settled_timestamp_seconds")
    assert settled
    # One message is lost at the broker.
    bench.broker.depths["resize"] = 8
    await bench.conservation.measure()
    assert gauge("conservation_broker_drift", function="resize") == 1
    # And one record in the store.
    with bench.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM invocations WHERE id = ?", (keys[1],))
    await bench.conservation.measure()
    assert gauge("conservation_record_drift") == 1


async def test_p5_the_broker_is_counted_once_every_worker_has_spoken_since(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drift() -> float | None:
        return bench.metrics.registry.get_sample_value("homing_conservation_broker_drift", {"function": "resize"})

    def says(in_flight: int) -> None:
        load = FunctionLoad(function="resize", in_flight=in_flight)
        bench.presence.on_status(WorkerStatus(worker="w1", functions=[load]))

    await accept_sent(bench.database, 2)
    bench.broker.depths["resize"] = 1
    says(in_flight=0)
    counting = asyncio.create_task(bench.conservation.measure())
    await asyncio.sleep(0.1)
    assert not counting.done()
    says(in_flight=1)
    await counting
    assert drift() == 0

    # Who has just connected has not heard all workers yet.
    monkeypatch.setattr(presence_module, "CONTROL_INTERVAL", 0.1)
    bench.presence.connected()
    says(in_flight=1)
    before = time.monotonic()
    counting = asyncio.create_task(bench.conservation.measure())
    while not counting.done():
        says(in_flight=1)
        await asyncio.sleep(0.01)
    assert time.monotonic() - before > 0.2
    assert drift() == 0


async def test_p5_what_moves_is_not_measured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = await accept_sent(bench.database, 2)
    bench.broker.depths["resize"] = 2
    depth = bench.broker.depth

    async def moving(function: str) -> object:
        if len(keys) == 2:
            await record(bench.database, *life(keys.pop()))
        return await depth(function)

    monkeypatch.setattr(bench.broker, "depth", moving)
    await bench.conservation.measure()
    name = "homing_conservation_broker_drift"
    assert bench.metrics.registry.get_sample_value(name, {"function": "resize"}) is None

    async def drift() -> float:
        await bench.conservation.measure()
        value = bench.metrics.registry.get_sample_value(name, {"function": "resize"})
        return -1.0 if value is None else value

    monkeypatch.setattr(bench.broker, "depth", depth)
    bench.broker.depths["resize"] = 1
    await eventually(drift, 0.0)
