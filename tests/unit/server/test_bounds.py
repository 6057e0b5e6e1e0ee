"""Every list and map of every request has a bound."""

from __future__ import annotations

import pytest

from homing.v1 import function_pb2, function_service_pb2, invocation_pb2, invocation_service_pb2
from homing_server.errors import ApiError, Code, Violation
from homing_server.rules.bounds import BOUNDS, check_bounds
from support.bounded import Place, methods, places

PLACES = places()


def test_every_list_and_map_of_every_request_has_a_bound_and_nothing_else_has_one() -> None:
    assert len({method.full_name for method in methods()}) > 30
    assert {place.field.full_name for place in PLACES} == BOUNDS.keys()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.method.name}-{place.name}")
def test_one_more_than_the_bound_is_refused_and_the_bound_itself_is_not(place: Place) -> None:
    most = BOUNDS[place.field.full_name]
    request = place.request(most)
    if any(field.full_name.endswith(".requests") for field in place.path[:-1]):
        # Those of a batch are checked one by one.
        check_bounds(place.request(most + 1))
        return
    check_bounds(request)
    with pytest.raises(ApiError) as caught:
        check_bounds(place.request(most + 1))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations == [
        Violation(field=place.name, description=f"must be at most {most}, are {most + 1}")
    ]


def test_the_fields_are_told_all_at_once_and_no_more_than_fit() -> None:
    spec = invocation_pb2.InvocationSpec(labels={str(number): "" for number in range(17)})
    spec.retry_policy.retry_status_codes.extend([500] * 301)
    with pytest.raises(ApiError) as caught:
        check_bounds(invocation_service_pb2.InvokeRequest(spec=spec))
    assert [violation.field for violation in caught.value.violations] == [
        "spec.labels",
        "spec.retry_policy.retry_status_codes",
    ]


def test_of_more_than_eight_fields_the_number_of_the_others_is_told() -> None:
    request = function_service_pb2.DeployFunctionRequest()
    function = request.function
    function.command.args.extend(["x"] * 1001)
    for number in range(257):
        function.env[f"E{number}"] = function.labels[f"l{number}"] = function.annotations[f"a{number}"] = ""
    function.secrets.extend(["s"] * 33)
    function.retry_policy.retry_status_codes.extend([500] * 301)
    for _ in range(9):
        function.on_success.add()
    with pytest.raises(ApiError) as caught:
        check_bounds(request)
    assert len(caught.value.violations) == 7
    assert "more" not in caught.value.message

    for _ in range(9):
        function.on_failure.add()
    with pytest.raises(ApiError) as caught:
        check_bounds(request)
    assert len(caught.value.violations) == 8
    assert "more" not in caught.value.message

    request.update_mask.paths.extend(["env"] * 100)
    with pytest.raises(ApiError, match=r"; and 1 more$") as caught:
        check_bounds(request)
    assert len(caught.value.violations) == 8


def test_lists_in_what_is_listed_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request has such a list by now but a batch, whose requests are checked one by one."""
    monkeypatch.setitem(BOUNDS, "homing.v1.ListFunctionsResponse.functions", 2)
    listed = function_service_pb2.ListFunctionsResponse()
    listed.functions.add()
    listed.functions.add().secrets.extend(["s"] * 33)
    with pytest.raises(ApiError) as caught:
        check_bounds(listed)
    assert [violation.field for violation in caught.value.violations] == ["functions[1].secrets"]


def test_what_has_no_lists_is_not_looked_into() -> None:
    check_bounds(function_pb2.Limits(pids=1))
