"""Snapshots are split by bytes, and put together again by workers."""

from __future__ import annotations

from homing.v1.function_pb2 import Function
from homing_core.wire.v1 import CancelledCall, Control, FunctionState, Snapshot, Tombstone
from homing_server.cluster.snapshots import snapshot_parts
from homing_worker.control.snapshots import SnapshotParts

FUNCTIONS = [FunctionState(function=Function(name=f"f{number}", image="x" * 100)) for number in range(20)]
STOPS = [Tombstone(invocation_id=f"t{number}", generation=number) for number in range(50)]
CALLS = [CancelledCall(invocation_id=f"c{number}") for number in range(3)]


def split(*, most: int) -> list[Snapshot]:
    return snapshot_parts(FUNCTIONS, STOPS, CALLS, most=most)


def control(part: Snapshot, *, server: str = "one", time_us: int = 1) -> Control:
    return Control(server=server, time_us=time_us, snapshot=part)


def test_parts_have_no_more_than_fits_and_make_the_whole() -> None:
    (whole,) = split(most=10**6)
    parts = split(most=500)
    assert len(parts) > 5
    assert max(part.ByteSize() for part in parts) <= 500
    taken = SnapshotParts()
    *before, last = [taken.take(control(part)) for part in parts]
    assert before == [None] * (len(parts) - 1)
    assert last is not None
    assert (list(last.functions), list(last.tombstones), list(last.cancelled_calls)) == (FUNCTIONS, STOPS, CALLS)
    assert list(whole.functions) == FUNCTIONS


def test_one_that_is_larger_than_a_part_goes_by_itself() -> None:
    assert [len(part.functions) for part in snapshot_parts(FUNCTIONS[:3], [], [], most=10)] == [1, 1, 1]


def test_nothing_at_all_is_a_snapshot_too() -> None:
    (part,) = snapshot_parts([], [], [])
    assert SnapshotParts().take(control(part)) == part


def test_a_snapshot_of_a_server_that_knows_of_no_parts_is_whole() -> None:
    assert SnapshotParts().take(control(Snapshot(functions=FUNCTIONS))) is not None


def test_snapshots_of_two_servers_do_not_mix() -> None:
    taken = SnapshotParts()
    ones, twos = split(most=2000), snapshot_parts(FUNCTIONS[:15], [], [], most=1500)
    assert len(twos) == 2
    done = []
    for index in range(max(len(ones), len(twos))):
        for server, parts in (("one", ones), ("two", twos)):
            if index < len(parts):
                done.append(taken.take(control(parts[index], server=server)))
    found = [len(each.functions) for each in done if each is not None]
    assert sorted(found) == [15, 20]


def test_a_snapshot_of_which_a_part_was_lost_never_counts_and_the_next_one_does() -> None:
    taken = SnapshotParts()
    parts = split(most=500)
    assert [taken.take(control(part)) for part in parts if part.part != 2] == [None] * (len(parts) - 1)
    assert [taken.take(control(part, time_us=2)) is not None for part in parts].count(True) == 1


def test_a_newer_snapshot_takes_the_place_of_one_that_is_not_whole() -> None:
    taken = SnapshotParts()
    old, new = split(most=2000), split(most=2000)
    taken.take(control(old[0]))
    taken.take(control(new[0], time_us=2))
    assert taken.take(control(old[1])) is None
    for part in new[1:-1]:
        taken.take(control(part, time_us=2))
    last = taken.take(control(new[-1], time_us=2))
    assert last is not None
    assert list(last.functions) == FUNCTIONS
