"""Functions, with both clients, against a real server that answers as told."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

import homing
from homing import Limits, RetryPolicy
from homing.v1 import function_pb2, function_service_pb2, policy_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_AWAY")


@pytest.fixture
def functions(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target).functions


def deployed(function: function_pb2.Function) -> function_service_pb2.DeployFunctionResponse:
    return function_service_pb2.DeployFunctionResponse(function=function, created=True)


def test_deploy_sends_what_it_is_given(driver: Driver, functions: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("DeployFunction", AWAY, deployed(records.function(revision=2)))

    function = driver.do(
        functions.deploy,
        name="figlet",
        image="figlet:1",
        env={"A": "1"},
        labels={"team": "x"},
        annotations={"note": "y"},
        limits=Limits(memory_bytes=2**26, cpu_millis=500, pids=20),
        concurrency=2,
        min_instances=1,
        max_instances=3,
        idle_timeout=60,
        retry_policy=RetryPolicy(max_attempts=1),
        attempt_timeout=30,
        max_age=3600,
        retention=86400,
        record_sync=False,
    )

    assert (function.name, function.image, function.revision) == ("figlet", "figlet:1", 2)
    assert function.create_time == records.CREATED
    assert (
        scripted_server.requests["DeployFunction"]
        == [
            function_service_pb2.DeployFunctionRequest(
                function=function_pb2.Function(
                    name="figlet",
                    image="figlet:1",
                    env={"A": "1"},
                    labels={"team": "x"},
                    annotations={"note": "y"},
                    limits=function_pb2.Limits(memory_bytes=2**26, cpu_millis=500, pids=20),
                    concurrency=2,
                    min_instances=1,
                    max_instances=3,
                    idle_timeout=records.span(60),
                    retry_policy=policy_pb2.RetryPolicy(max_attempts=1),
                    attempt_timeout=records.span(30),
                    max_age=records.span(3600),
                    retention=records.span(86400),
                    record_sync=False,
                )
            )
        ]
        * 2
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"command": ["cat", "-"]}, function_pb2.Function(name="f", command=function_pb2.Command(args=["cat", "-"]))),
        (
            {"http_command": ["node", "site.js"]},
            function_pb2.Function(name="f", http_command=function_pb2.Command(args=["node", "site.js"])),
        ),
        ({"command": []}, function_pb2.Function(name="f", command=function_pb2.Command())),
        ({"url": "http://localhost:1"}, function_pb2.Function(name="f", url="http://localhost:1")),
    ],
    ids=str,
)
def test_a_function_has_one_source(
    driver: Driver,
    functions: Any,
    scripted_server: ScriptedServer,
    source: dict[str, Any],
    expected: function_pb2.Function,
) -> None:
    scripted_server.script("DeployFunction", deployed(expected))

    driver.do(functions.deploy, name="f", **source)

    assert scripted_server.requests["DeployFunction"][0].function == expected


@pytest.mark.parametrize(
    "case",
    [
        ({}, homing.InvalidRequestError, "image, command, http_command, url: one of them must be given; none is given"),
        (
            {"image": "a", "url": "b"},
            homing.InvalidRequestError,
            "only one of them may be given; image and url are given",
        ),
        ({"name": None, "image": "a"}, TypeError, "name must be str, not NoneType"),
        ({"command": "cat"}, TypeError, "command must be a list of str, not str"),
        ({"command": [1]}, TypeError, "command must be str, not int"),
        ({"http_command": "node"}, TypeError, "http_command must be a list of str, not str"),
        (
            {"command": ["a"], "http_command": ["b"]},
            homing.InvalidRequestError,
            "only one of them may be given; command and http_command are given",
        ),
        ({"image": "a", "limits": {}}, TypeError, "limits must be Limits, not dict"),
        ({"image": "a", "limits": Limits(memory_bytes=-1)}, homing.InvalidRequestError, r"limits\.memory_bytes: must"),
        ({"image": "a", "concurrency": "2"}, TypeError, "concurrency must be int, not str"),
        ({"image": "a", "max_instances": 2**40}, homing.InvalidRequestError, "max_instances: must be from"),
        ({"image": "a", "idle_timeout": -5}, homing.InvalidRequestError, "idle_timeout: must be more than 0 s"),
        ({"image": "a", "record_sync": 1}, TypeError, "record_sync must be bool, not int"),
        ({"image": "a", "env": {"A": 1}}, TypeError, r"env\['A'\] must be str, not int"),
    ],
    ids=lambda case: case[2],
)
def test_bad_arguments_are_named_before_anything_is_sent(
    driver: Driver,
    functions: Any,
    scripted_server: ScriptedServer,
    case: tuple[dict[str, Any], type[Exception], str],
) -> None:
    options, error, message = case

    with pytest.raises(error, match=message):
        driver.do(functions.deploy, **{"name": "f"} | options)

    assert scripted_server.requests == {}


def test_an_update_sends_what_it_is_given_and_names_it(
    driver: Driver, functions: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("DeployFunction", AWAY, deployed(records.function(revision=2)))

    function = driver.do(
        functions.update, "figlet", image="figlet:2", env=None, min_instances=0, labels={}, limits=Limits(pids=5)
    )

    assert function.revision == 2
    assert (
        scripted_server.requests["DeployFunction"]
        == [
            function_service_pb2.DeployFunctionRequest(
                function=function_pb2.Function(name="figlet", image="figlet:2", limits=function_pb2.Limits(pids=5)),
                update_mask=FieldMask(paths=["image", "env", "min_instances", "labels", "limits"]),
            )
        ]
        * 2
    ), "None and what is empty are named too, and it is idempotent"


@pytest.mark.parametrize(
    "case",
    [
        ({}, homing.InvalidRequestError, "options: at least one must be given"),
        ({"image": "a", "command": ["b"]}, homing.InvalidRequestError, "image and command are given"),
        ({"imgae": "a"}, TypeError, "a function has no 'imgae'"),
        ({"paused": True}, TypeError, "a function has no 'paused'"),
        ({"public": 1}, TypeError, "public must be bool, not int"),
        ({"public": True, "expected_revision": "1"}, TypeError, "expected_revision must be int, not str"),
        ({"public": True, "expected_revision": -1}, homing.InvalidRequestError, "expected_revision: must be from 0"),
    ],
    ids=lambda case: case[2],
)
def test_a_bad_update_is_named_before_anything_is_sent(
    driver: Driver,
    functions: Any,
    scripted_server: ScriptedServer,
    case: tuple[dict[str, Any], type[Exception], str],
) -> None:
    options, error, message = case

    with pytest.raises(error, match=message):
        driver.do(functions.update, "f", **options)

    assert scripted_server.requests == {}


def test_what_expects_a_revision_is_not_repeated(
    driver: Driver, functions: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("DeployFunction", AWAY)

    with pytest.raises(homing.UnavailableError):
        driver.do(functions.deploy, name="f", image="f:1", expected_revision=0)
    with pytest.raises(homing.UnavailableError):
        driver.do(functions.update, "f", public=None, expected_revision=7)

    assert [
        (request.HasField("expected_revision"), request.expected_revision)
        for request in scripted_server.requests["DeployFunction"]
    ] == [(True, 0), (True, 7)]


def test_another_revision_than_expected_is_an_error_of_its_own(
    driver: Driver, functions: Any, scripted_server: ScriptedServer
) -> None:
    mismatch = Refusal(
        code=grpc.StatusCode.ABORTED,
        reason="REVISION_MISMATCH",
        metadata={"function": "f", "expected": "7", "actual": "9"},
    )
    scripted_server.script("DeployFunction", mismatch)

    with pytest.raises(homing.RevisionMismatchError) as caught:
        driver.do(functions.update, "f", image="f:2", expected_revision=7)

    assert (caught.value.expected, caught.value.actual) == (7, 9)
    assert isinstance(caught.value, homing.AbortedError)


def test_get_returns_one_and_list_all_pages(driver: Driver, functions: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("GetFunction", function_service_pb2.GetFunctionResponse(function=records.function("a")))
    scripted_server.script(
        "ListFunctions",
        function_service_pb2.ListFunctionsResponse(
            functions=[records.function("a"), records.function("b")], next_page_token="more"
        ),
        AWAY,
        function_service_pb2.ListFunctionsResponse(functions=[records.function("c")]),
    )

    assert driver.do(functions.get, "a").name == "a"
    assert [function.name for function in driver.rest(functions.list())] == ["a", "b", "c"]
    assert [request.page_token for request in scripted_server.requests["ListFunctions"]] == ["", "more", "more"]


def test_delete_tells_how_many_waited_and_is_not_repeated(
    driver: Driver, functions: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("DeleteFunction", function_service_pb2.DeleteFunctionResponse(invalidated=3), AWAY)

    assert driver.do(functions.delete, "a") == 3
    with pytest.raises(homing.UnavailableError):
        driver.do(functions.delete, "a")
    assert len(scripted_server.requests["DeleteFunction"]) == 2


def test_pause_resume_and_scale_return_the_function(
    driver: Driver, functions: Any, scripted_server: ScriptedServer
) -> None:
    paused, scaled = records.function("a"), records.function("a")
    paused.paused = True
    scaled.max_instances = 7
    scripted_server.script("PauseFunction", AWAY, function_service_pb2.PauseFunctionResponse(function=paused))
    scripted_server.script(
        "ResumeFunction", AWAY, function_service_pb2.ResumeFunctionResponse(function=records.function("a"))
    )
    scripted_server.script("ScaleFunction", AWAY, function_service_pb2.ScaleFunctionResponse(function=scaled))

    assert driver.do(functions.pause, "a").paused
    assert not driver.do(functions.resume, "a").paused
    assert driver.do(functions.scale, "a", max_instances=7).max_instances == 7
    driver.do(functions.scale, "a", min_instances=0)

    assert [request.name for request in scripted_server.requests["PauseFunction"]] == ["a", "a"]
    assert [request.name for request in scripted_server.requests["ResumeFunction"]] == ["a", "a"]
    assert scripted_server.requests["ScaleFunction"][1:] == [
        function_service_pb2.ScaleFunctionRequest(name="a", max_instances=7),
        function_service_pb2.ScaleFunctionRequest(name="a", min_instances=0),
    ]


def test_wrong_bounds_are_named_before_anything_is_sent(
    driver: Driver, functions: Any, scripted_server: ScriptedServer
) -> None:
    with pytest.raises(TypeError, match="name must be str, not int"):
        driver.do(functions.pause, 5)
    with pytest.raises(TypeError, match="max_instances must be int, not float"):
        driver.do(functions.scale, "a", max_instances=1.5)

    assert scripted_server.requests == {}
