"""Which fields of a function a deployment sets, where it does not set the function as a whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from homing.v1 import function_pb2
from homing_server.errors import shown
from homing_server.rules.validation import Checks

_FIELDS: Final = frozenset(function_pb2.Function.DESCRIPTOR.fields_by_name)
_SET_BY_SERVER: Final = frozenset({"revision", "create_time", "update_time", "paused", "rollout_revision"})


def check_update_mask(checks: Checks, paths: Sequence[str], *, force: bool = False) -> None:
    """Check that a mask names fields of a function that a deployment may set, each as a whole.

    :param force: Whether a deployment that sets none has a meaning all the same.
    """
    if not (paths or force):
        checks.add("update_mask", "must name a field; without a mask the function is set as a whole")
    for index, path in enumerate(paths):
        where = f"update_mask.paths[{index}]"
        field, dot, _ = path.partition(".")
        if path == "name":
            checks.add(where, "must not name 'name', which stays")
        elif path in _SET_BY_SERVER:
            checks.add(where, f"must not name {path!r}, which the server sets")
        elif dot and field in _FIELDS:
            checks.add(where, f"must name {field!r}, which is set as a whole, in place of {shown(path)}")
        elif path not in _FIELDS:
            checks.add(where, f"{shown(path)} is not a field of a function")


def only(function: function_pb2.Function, paths: Collection[str]) -> function_pb2.Function:
    """Return a function with its name and these of its fields."""
    part = function_pb2.Function()
    part.CopyFrom(function)
    for field in _FIELDS.difference(paths, {"name"}):
        part.ClearField(field)  # type: ignore[arg-type]  # the stubs want to know which
    return part


def updated(
    current: function_pb2.Function, part: function_pb2.Function, paths: Collection[str]
) -> function_pb2.Function:
    """Return a function with these fields set as a part of one says: to their defaults where it says nothing."""
    function = function_pb2.Function()
    function.CopyFrom(current)
    for field in paths:
        function.ClearField(field)  # type: ignore[arg-type]  # the stubs want to know which
    function.MergeFrom(part)
    return function
