"""Masks: which fields of a function a deployment sets."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from homing.v1 import function_pb2, policy_pb2
from homing_server.errors import ApiError
from homing_server.rules.update_mask import check_update_mask, only, updated
from homing_server.rules.validation import Checks

Function = function_pb2.Function

EVERY = Function(
    name="resize",
    image="resize:1",
    env={"A": "1"},
    secrets=["s"],
    labels={"l": "1"},
    annotations={"a": "1"},
    limits=function_pb2.Limits(pids=5, cpu_millis=7),
    concurrency=2,
    min_instances=1,
    max_instances=3,
    idle_timeout=Duration(seconds=9),
    retry_policy=policy_pb2.RetryPolicy(max_attempts=2, retry_status_codes=[503]),
    attempt_timeout=Duration(seconds=9),
    max_age=Duration(seconds=9),
    retention=Duration(seconds=99),
    record_sync=False,
    on_success=[policy_pb2.Destination(uri="function:a")],
    on_failure=[policy_pb2.Destination(uri="function:b")],
    public=True,
    revision=7,
    paused=True,
)
SET_BY_SERVER = {"revision", "create_time", "update_time", "paused", "rollout_revision"}
SETTABLE = sorted(set(Function.DESCRIPTOR.fields_by_name) - {"name"} - SET_BY_SERVER)


def with_mask(current: Function, wanted: Function, *paths: str) -> Function:
    return updated(current, only(wanted, paths), paths)


def changed(function: Function, **fields: Any) -> Function:
    """Return a function with these fields in place of what it had there."""
    copy = Function()
    copy.CopyFrom(function)
    for field in fields:
        copy.ClearField(field)  # type: ignore[arg-type]
    copy.MergeFrom(Function(**fields))
    return copy


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        ([], "must name a field; without a mask the function is set as a whole"),
        (["name"], "must not name 'name', which stays"),
        (["revision"], "must not name 'revision', which the server sets"),
        (["create_time"], "must not name 'create_time', which the server sets"),
        (["update_time"], "must not name 'update_time', which the server sets"),
        (["image", "paused"], "must not name 'paused', which the server sets"),
        (["rollout_revision"], "must not name 'rollout_revision', which the server sets"),
        (["imgae"], "'imgae' is not a field of a function"),
        (["source"], "'source' is not a field of a function"),
        (["*"], "'*' is not a field of a function"),
        ([""], "'' is not a field of a function"),
        (["x" * 100], f"'{'x' * 64}…' is not a field of a function"),
        (["limits.pids"], "must name 'limits', which is set as a whole, in place of 'limits.pids'"),
        (["labels.team"], "must name 'labels', which is set as a whole, in place of 'labels.team'"),
        (["nothing.at.all"], "'nothing.at.all' is not a field of a function"),
    ],
    ids=str,
)
def test_a_bad_mask_is_refused_with_the_path(paths: list[str], rule: str) -> None:
    checks = Checks()
    check_update_mask(checks, paths)
    with pytest.raises(ApiError) as caught:
        checks.done()
    field = f"update_mask.paths[{len(paths) - 1}]" if paths else "update_mask"
    assert [(each.field, each.description) for each in caught.value.violations] == [(field, rule)]


def test_a_mask_may_name_nothing_where_the_deployment_has_a_meaning_all_the_same() -> None:
    checks = Checks()
    check_update_mask(checks, [], force=True)
    checks.done()


def test_everything_else_may_be_named() -> None:
    checks = Checks()
    check_update_mask(checks, SETTABLE)
    checks.done()


@pytest.mark.parametrize("field", SETTABLE)
def test_a_field_that_is_named_is_set_and_the_others_stay(field: str) -> None:
    bare = Function(name="resize")
    program = function_pb2.Command(args=["cat"])
    sources = {
        "command": Function(command=program),
        "http_command": Function(http_command=program),
        "url": Function(url="http://x"),
    }
    if other := sources.get(field):
        assert with_mask(EVERY, other, field) == changed(EVERY, **{field: getattr(other, field)})
    else:
        assert with_mask(bare, EVERY, field) == changed(bare, **{field: getattr(EVERY, field)})
        cleared = changed(EVERY)
        cleared.ClearField(field)  # type: ignore[arg-type]
        assert with_mask(EVERY, bare, field) == cleared, "what is named and not said falls back to its default"


def test_of_maps_lists_and_messages_the_whole_is_set() -> None:
    wanted = Function(
        env={"B": "2"},
        secrets=["t"],
        limits=function_pb2.Limits(memory_bytes=1),
        retry_policy=policy_pb2.RetryPolicy(retry_status_codes=[500]),
        on_failure=[policy_pb2.Destination(uri="amqp:/q")],
    )
    function = with_mask(EVERY, wanted, "env", "secrets", "limits", "retry_policy", "on_failure")
    for field in ("env", "secrets", "limits", "retry_policy", "on_failure"):
        assert getattr(function, field) == getattr(wanted, field)
    assert function.labels == EVERY.labels


def test_a_source_takes_the_place_of_another() -> None:
    command = Function(command=function_pb2.Command(args=["cat"]))
    for paths in (["command"], ["image", "command", "http_command", "url"], ["command", "image"]):
        function = with_mask(EVERY, command, *paths)
        assert function.WhichOneof("source") == "command"
    assert with_mask(EVERY, command, "url").image == "resize:1", "another source was not named"
    assert with_mask(EVERY, Function(), "image").WhichOneof("source") is None


def test_what_is_not_named_is_not_looked_at() -> None:
    part = only(EVERY, ["image"])
    assert part == Function(name="resize", image="resize:1")
    assert EVERY.labels == {"l": "1"}, "the request itself stays as it came"
