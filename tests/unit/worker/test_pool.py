from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
from google.protobuf.duration_pb2 import Duration

from homing.v1.function_pb2 import Function
from homing_core.reasons import FailureReason
from homing_core.sealing import seal
from homing_core.wire.v1 import FunctionSecrets, Sealed
from homing_worker.control.secrets import SecretLink
from homing_worker.execution.pool import Pool
from homing_worker.execution.slots import PoolClosedError, Slot
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime import Answer, Instance, Request, Runtime, StartFailedError

PATIENCE = 5.0


class FakeInstance(Instance):
    def __init__(self, number: int, revision: int, image_id: str) -> None:
        self.name = f"instance-{number}"
        self.revision = revision
        self.image_id = image_id
        self.stopped = asyncio.Event()
        self.running = True
        self._hook: Callable[[], None] = lambda: None

    @property
    def alive(self) -> bool:
        return self.running

    def on_exit(self, hook: Callable[[], None]) -> None:
        self._hook = hook

    def die(self) -> None:
        self.running = False
        self._hook()

    async def call(self, request: Request, log: InvocationLog | None) -> Answer:
        raise NotImplementedError

    async def verify(self) -> bool:
        return self.running

    async def kill(self) -> bool:
        await self.stop()
        return True

    async def stop(self) -> None:
        self.running = False
        self.stopped.set()


class FakeRuntime(Runtime):
    """Starts instances at once, or when let; fails as often as is wanted."""

    source = "image"

    def __init__(self) -> None:
        self.instances: list[FakeInstance] = []
        self.starts = 0
        self.secrets: list[Mapping[str, bytes]] = []
        self.failing = 0
        self.images = {"": "", "f:1": "sha256:old"}
        """What the names of images stand for."""
        self.lookups: list[str] = []
        """What they stand for at the next times."""
        self.removed: set[str] = set()
        self.let = asyncio.Event()
        self.let.set()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def start(self, function: Function, secrets: Mapping[str, bytes], *, image_id: str = "") -> Instance:
        self.starts += 1
        image_id = image_id if image_id not in self.removed else ""
        image_id = image_id or (self.lookups.pop(0) if self.lookups else self.images[function.image])
        self.secrets.append(secrets)
        number = self.starts
        await self.let.wait()
        if self.failing:
            self.failing -= 1
            raise StartFailedError(FailureReason.START_FAILED, f"start {number} failed")
        instance = FakeInstance(number, function.revision, image_id)
        self.instances.append(instance)
        return instance


@pytest.fixture
async def runtime() -> FakeRuntime:
    return FakeRuntime()


def function(**fields: object) -> Function:
    return Function(name="f", revision=1, **fields)  # type: ignore[arg-type]


async def take(pool: Pool, *, sync: bool = False) -> Slot:
    async with asyncio.timeout(PATIENCE):
        return pool.take() or await pool.wait(sync=sync)


async def turns(count: int = 20) -> None:
    """Let the event loop go round a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_starts_from_zero_and_reuses_what_runs(runtime: FakeRuntime) -> None:
    pool = Pool(function(), runtime, SecretLink())
    pool.warm_up()
    await turns()
    assert (pool.instances, pool.cold) == (0, True)

    first = await take(pool)
    pool.release(first)
    second = await take(pool)

    assert first.instance is second.instance
    assert (runtime.starts, pool.instances, pool.busy, pool.cold) == (1, 1, 1, False)


async def test_it_grows_with_what_waits_up_to_the_maximum(runtime: FakeRuntime) -> None:
    pool = Pool(function(concurrency=2, max_instances=3), runtime, SecretLink())
    runtime.let.clear()

    waiting = [asyncio.create_task(pool.wait(sync=False)) for _ in range(3)]
    await turns()
    assert runtime.starts == 2
    waiting += [asyncio.create_task(pool.wait(sync=False)) for _ in range(20)]
    await turns()

    assert runtime.starts == 3
    runtime.let.set()
    await turns()
    assert sum(task.done() for task in waiting) == pool.busy == pool.capacity == 6
    for task in waiting:
        task.cancel()


async def test_those_who_wait_are_served_in_order_with_sync_callers_first(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=1), runtime, SecretLink())
    slot = await take(pool)
    served: list[str] = []

    async def wait(name: str, *, sync: bool) -> None:
        mine = await pool.wait(sync=sync)
        served.append(name)
        pool.release(mine)

    tasks = []
    for name, sync in (("a1", False), ("a2", False), ("s1", True), ("a3", False), ("s2", True)):
        tasks.append(asyncio.create_task(wait(name, sync=sync)))
        await turns(1)
    assert pool.take() is None
    pool.release(slot)
    await asyncio.gather(*tasks)

    assert served == ["s1", "s2", "a1", "a2", "a3"]


async def test_who_stops_waiting_leaves_no_trace(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=1), runtime, SecretLink())
    slot = await take(pool)
    gone = asyncio.create_task(pool.wait(sync=False))
    stays = asyncio.create_task(pool.wait(sync=False))
    await turns()
    gone.cancel()
    await turns()
    pool.release(slot)
    await turns()

    assert stays.done()
    # Cancelled in the very turn in which it was served, it gives the slot back.
    late = asyncio.create_task(pool.wait(sync=False))
    await turns()
    pool.release(stays.result())
    late.cancel()
    await turns()
    assert pool.busy == 0


async def test_a_start_that_fails_tells_those_who_wait(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=1), runtime, SecretLink())
    runtime.failing = 1

    waiting = [asyncio.create_task(pool.wait(sync=sync)) for sync in (False, True)]
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [str(result) for result in results] == ["start 1 failed"] * 2
    assert (await take(pool)).instance.name == "instance-2"


async def test_a_start_that_fails_beside_a_running_instance_disturbs_nobody(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=2), runtime, SecretLink())
    slot = await take(pool)
    runtime.failing = 1
    waiter = asyncio.create_task(pool.wait(sync=False))
    await turns()
    assert runtime.starts == 2

    pool.release(slot)
    assert (await waiter).instance is slot.instance


async def test_an_instance_that_dies_is_replaced(runtime: FakeRuntime) -> None:
    pool = Pool(function(min_instances=1), runtime, SecretLink())
    pool.warm_up()
    await turns()
    runtime.instances[0].die()
    await turns()

    assert runtime.instances[0].stopped.is_set()
    assert (runtime.starts, pool.instances) == (2, 1)


async def test_a_retired_instance_gets_no_calls_and_stops_after_its_last(runtime: FakeRuntime) -> None:
    pool = Pool(function(concurrency=2, max_instances=1), runtime, SecretLink())
    one, two = await take(pool), await take(pool)
    one.retire = True
    pool.release(one)
    await turns()
    assert not runtime.instances[0].stopped.is_set()

    three = await take(pool)
    assert three.instance is not two.instance
    pool.release(two)
    await turns()
    assert runtime.instances[0].stopped.is_set()


async def test_a_suspect_instance_gets_calls_again_once_it_was_found_to_run(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=1), runtime, SecretLink())
    slot = await take(pool)
    slot.suspect = True
    pool.release(slot)
    assert pool.take() is None
    assert (await take(pool)).instance is slot.instance

    runtime.instances[0].running = False
    slot.suspect = True
    pool.release(slot)
    assert (await take(pool)).instance is not slot.instance


async def test_a_new_revision_replaces_idle_instances_at_once_and_busy_ones_later(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=2), runtime, SecretLink())
    busy, idle = await take(pool), await take(pool)
    pool.release(idle)
    newer = function(max_instances=2, env={"A": "1"})
    newer.revision = 2
    pool.update(newer)
    await turns()

    assert [instance.stopped.is_set() for instance in runtime.instances] == [False, True]
    assert (await take(pool)).instance.revision == 2
    pool.release(busy)
    await turns()
    assert runtime.instances[0].stopped.is_set()


async def test_an_instance_of_an_old_revision_that_comes_up_late_is_stopped(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=1), runtime, SecretLink())
    runtime.let.clear()
    waiter = asyncio.create_task(pool.wait(sync=False))
    await turns()
    newer = function(max_instances=1, env={"A": "1"})
    newer.revision = 2
    pool.update(newer)
    runtime.let.set()

    async with asyncio.timeout(PATIENCE):
        assert (await waiter).instance.revision == 2
    assert runtime.instances[0].stopped.is_set()


async def test_idle_instances_stop_down_to_the_minimum(runtime: FakeRuntime) -> None:
    pool = Pool(
        function(min_instances=1, max_instances=3, idle_timeout=Duration(nanos=100_000_000)), runtime, SecretLink()
    )
    slots = [await take(pool) for _ in range(3)]
    for slot in slots:
        pool.release(slot)

    async with asyncio.timeout(PATIENCE):
        await runtime.instances[1].stopped.wait()
        await runtime.instances[2].stopped.wait()
    assert (pool.instances, runtime.instances[0].running) == (1, True)


async def test_a_closed_pool_lets_everybody_go(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=1), runtime, SecretLink())
    await take(pool)
    waiter = asyncio.create_task(pool.wait(sync=False))
    await turns()
    pool.refuse(77)

    with pytest.raises(PoolClosedError):
        await waiter
    assert pool.deleted_revision == 77
    with pytest.raises(PoolClosedError):
        await pool.wait(sync=True)
    await pool.close()
    assert runtime.instances[0].stopped.is_set()


async def test_a_pool_waits_until_it_knows_a_revision_or_is_closed(runtime: FakeRuntime) -> None:
    pool = Pool(Function(name="f", revision=2), runtime, SecretLink())
    await pool.reach(2)
    later, never = (asyncio.create_task(pool.reach(revision)) for revision in (4, 9))
    await turns()
    pool.update(Function(name="f", revision=3))
    await turns()
    assert not later.done()
    pool.update(Function(name="f", revision=5), deleted_revision=4)
    await later
    assert (pool.deleted_revision, never.done()) == (4, False)

    pool.refuse()

    with pytest.raises(PoolClosedError):
        await never
    assert pool.deleted_revision == 4, "the function as it is now was not deleted"


async def test_pausing_and_scaling_leave_the_instances_in_place(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=2), runtime, SecretLink())
    busy, idle = await take(pool), await take(pool)
    pool.release(idle)

    pool.update(Function(name="f", revision=2, max_instances=2, paused=True))
    pool.update(Function(name="f", revision=3, max_instances=4, min_instances=3))
    await turns()
    assert (runtime.starts, pool.instances, pool.capacity) == (3, 3, 4)
    pool.update(Function(name="f", revision=4, max_instances=1))
    await turns()

    stopped = [instance for instance in runtime.instances if instance.stopped.is_set()]
    assert len(stopped) == 2
    assert busy.instance not in stopped, "those that idle go first"
    pool.release(busy)
    assert (await take(pool)).instance is busy.instance
    pool.update(Function(name="f", revision=5, max_instances=1, env={"A": "1"}))
    await turns()
    assert pool.cold, "made otherwise it is replaced"


async def test_an_instance_that_starts_while_the_function_is_scaled_serves_where_it_may(runtime: FakeRuntime) -> None:
    pool = Pool(function(max_instances=3), runtime, SecretLink())
    runtime.let.clear()
    waiting = [asyncio.create_task(pool.wait(sync=False)) for _ in range(3)]
    await turns()
    pool.update(Function(name="f", revision=2, max_instances=2))
    runtime.let.set()
    await turns()

    assert (runtime.starts, pool.instances) == (3, 2)
    assert [instance.stopped.is_set() for instance in runtime.instances] == [False, False, True]
    assert sum(task.done() for task in waiting) == 2
    for task in waiting:
        task.cancel()


async def test_instances_above_a_lower_minimum_stop_once_they_have_idled(runtime: FakeRuntime) -> None:
    idle_timeout = Duration(nanos=50_000_000)
    pool = Pool(function(min_instances=2, idle_timeout=idle_timeout), runtime, SecretLink())
    pool.warm_up()
    await turns()
    assert pool.instances == 2
    pool.update(Function(name="f", revision=2, min_instances=1, idle_timeout=idle_timeout))
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait(
            [asyncio.ensure_future(instance.stopped.wait()) for instance in runtime.instances],
            return_when=asyncio.FIRST_COMPLETED,
        )
    await turns()
    assert pool.instances == 1


def sealed(link: SecretLink, version: int, **secrets: bytes) -> Sealed:
    known = FunctionSecrets(secrets=secrets, secrets_version=version)
    return Sealed(function="f", box=seal(link.seal_key, known.SerializeToString(), "f"))


async def test_instances_are_started_with_their_secrets_and_replaced_with_them(runtime: FakeRuntime) -> None:
    link = SecretLink()
    wanted = function(max_instances=1, secrets=["a"])
    pool = Pool(wanted, runtime, link, secrets_version=1)
    waiter = asyncio.create_task(pool.wait(sync=False))
    await turns()
    assert runtime.starts == 0, "it starts when its secrets are there"
    link.take(sealed(link, 1, a=b"one", b=b"none of its business"))
    async with asyncio.timeout(PATIENCE):
        slot = await waiter
    pool.release(slot)

    pool.update(wanted, secrets_version=1)
    await turns()
    assert not runtime.instances[0].stopped.is_set(), "nothing has changed"
    link.take(sealed(link, 2, a=b"two"))
    pool.update(wanted, secrets_version=2)
    await turns()

    assert runtime.instances[0].stopped.is_set()
    await take(pool)
    assert runtime.secrets == [{"a": b"one"}, {"a": b"two"}]


async def test_a_start_without_its_secrets_fails(runtime: FakeRuntime) -> None:
    pool = Pool(function(secrets=["a"]), runtime, SecretLink(timeout=0.02), secrets_version=1)

    with pytest.raises(StartFailedError, match="its secrets are not here") as failed:
        await take(pool)
    assert (failed.value.reason, runtime.starts) == (FailureReason.SECRETS_UNAVAILABLE, 0)


async def test_instances_of_a_revision_are_all_made_from_the_image_that_the_first_one_was(runtime: FakeRuntime) -> None:
    image = function(image="f:1", max_instances=3)
    pool = Pool(image, runtime, SecretLink())
    first = await take(pool)
    runtime.images["f:1"] = "sha256:new"
    second = await take(pool)
    scaled = Function()
    scaled.CopyFrom(image)
    scaled.revision, scaled.max_instances = 2, 4
    pool.update(scaled)
    third = await take(pool)
    assert {slot.instance.image_id for slot in (first, second, third)} == {"sha256:old"}

    forced = Function()
    forced.CopyFrom(scaled)
    forced.revision = forced.rollout_revision = 3
    pool.update(forced)
    for slot in (first, second, third):
        pool.release(slot)
    assert {(await take(pool)).instance.image_id for _ in range(3)} == {"sha256:new"}
    await pool.close()


async def test_of_two_that_start_at_a_time_from_different_images_one_alone_serves(runtime: FakeRuntime) -> None:
    runtime.let.clear()
    runtime.lookups = ["sha256:old", "sha256:new"]
    pool = Pool(function(image="f:1", max_instances=2), runtime, SecretLink())
    waiting = [asyncio.create_task(take(pool)) for _ in range(2)]
    await turns()
    assert (runtime.starts, runtime.lookups) == (2, [])
    runtime.let.set()
    slots = await asyncio.gather(*waiting)
    assert {slot.instance.image_id for slot in slots} == {"sha256:old"}
    assert (runtime.starts, len(runtime.instances)) == (3, 3)
    await pool.close()


async def test_where_the_image_is_gone_that_its_instances_were_made_from_the_name_is_looked_up_anew(
    runtime: FakeRuntime,
) -> None:
    pool = Pool(function(image="f:1", max_instances=1), runtime, SecretLink())
    slot = await take(pool)
    slot.retire = True
    runtime.removed.add("sha256:old")
    runtime.images["f:1"] = "sha256:new"
    pool.release(slot)
    for _ in range(2):
        slot = await take(pool)
        assert slot.instance.image_id == "sha256:new"
        pool.release(slot)
    await pool.close()
