"""The JSON of OpenFaaS's gateway: what it asks for, what it is answered, and what is wrong with it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from homing.v1.function_pb2 import Command, Function, Limits
from homing_core.wire.v1 import LogLine
from homing_server.errors import ApiError
from homing_server.front.http.system.log_stream import LogQuery, rendered
from homing_server.front.http.system.shapes import deployment_of, function_name, secret_value, status_of
from homing_server.functions.quantities import amount_of
from homing_server.store.logs import FunctionLine


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0), ("128", 128), ("1.5", 1.5), ("100m", 0.1), ("1k", 1e3), ("2M", 2e6), ("1G", 1e9), ("1T", 1e12),
        ("1Ki", 1024), ("128Mi", 128 << 20), ("1.5Gi", 1.5 * (1 << 30)), ("1Ti", 1 << 40), (" 5 ", 5), ("", None),
        ("x", None), ("-1", None), ("1e3", None), ("1 Mi", None), ("Mi", None), ("1KiB", None), ("٣", None),
        (".5", None),
        ("9" * 16, None), ("inf", None), ("1mi", None),
    ],
)  # fmt: skip
def test_amounts(text: str, amount: float | None) -> None:
    assert amount_of(text) == (None if amount is None else pytest.approx(amount))


def test_a_deployment_says_what_openfaas_knows_and_leaves_the_rest_alone() -> None:
    request = deployment_of(
        {
            "service": "env", "image": "i:1", "namespace": "openfaas-fn", "envProcess": "env", "envVars": {"k": "v"},
            "secrets": ["s"], "labels": {"l": "1"}, "annotations": {"a": "1"},
            "limits": {"memory": "64Mi", "cpu": "250m"}, "requests": {"memory": "1Mi"}, "constraints": None,
        }
    )  # fmt: skip
    assert request.function == Function(
        name="env",
        image="i:1",
        env={"fprocess": "env", "k": "v"},
        secrets=["s"],
        labels={"l": "1"},
        annotations={"a": "1"},
        limits=Limits(memory_bytes=64 << 20, cpu_millis=250),
    )
    assert set(request.update_mask.paths) == {"image", "env", "secrets", "labels", "annotations", "limits"}
    assert deployment_of(
        {"service": "f", "image": "i", "envProcess": "a", "envVars": {"fprocess": "b"}}
    ).function.env == {"fprocess": "b"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"service": ""}, "service"), ({"service": None}, "service"), ({"service": 1}, "service"),
        ({"image": []}, "image"), ({"envProcess": 1}, "envProcess"), ({"envVars": []}, "envVars"),
        ({"envVars": {"a": None}}, "envVars"), ({"secrets": "s"}, "secrets"), ({"secrets": [1]}, "secrets"),
        ({"labels": 1}, "labels"), ({"annotations": {"a": {}}}, "annotations"),
        ({"limits": {"memory": "lots"}}, "limits.memory"),
        ({"limits": {"cpu": "x"}}, "limits.cpu"), ({"limits": {"memory": 1}}, "limits"),
        ({"namespace": "n"}, "namespace"),
    ],
)  # fmt: skip
def test_a_deployment_that_cannot_be_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        deployment_of({"service": "f", "image": "i"} | change)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_an_amount_that_is_less_than_one_is_no_missing_limit() -> None:
    # Docker Swarm wrote megabytes so, and Kubernetes' thousandths of a byte are too few: the server refuses them.
    request = deployment_of({"service": "f", "image": "i", "limits": {"memory": "40m", "cpu": "0.0001"}})
    assert request.function.limits == Limits(memory_bytes=1, cpu_millis=1)
    exact = deployment_of({"service": "f", "image": "i", "limits": {"memory": "0", "cpu": "1.1"}})
    assert exact.function.limits == Limits(cpu_millis=1100)


def test_a_status_has_no_null_and_no_empty_time() -> None:
    function = Function(name="f", command=Command(args=["cat", "-"]), env={"fprocess": "cat", "a": "b"})
    function.limits.memory_bytes, function.limits.cpu_millis = 1024, 100
    function.create_time.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert status_of(function, replicas=0, served=True, invocations=3) == {
        "name": "f",
        "image": "cat -",
        "namespace": "openfaas-fn",
        "envProcess": "cat",
        "envVars": {"a": "b"},
        "limits": {"memory": "1024", "cpu": "100m"},
        "invocationCount": 3.0,
        "replicas": 1,
        "availableReplicas": 1,
        "createdAt": "2026-01-02T03:04:05Z",
    }
    shown = status_of(Function(name="f", url="http://x"), replicas=5, served=True, invocations=0)
    assert (shown["image"], shown["replicas"], shown["invocationCount"]) == ("http://x", 5, 0.0)
    program = Function(name="f", http_command=Command(args=["python3", "app.py"]))
    assert status_of(program, replicas=0, served=True, invocations=0)["image"] == "python3 app.py"
    assert status_of(Function(name="f", image="i"), replicas=0, served=False, invocations=0)["availableReplicas"] == 0


def test_the_value_of_a_secret_is_text_or_bytes() -> None:
    assert secret_value({"value": "tëxt"}) == "tëxt".encode()
    assert secret_value({"value": "ignored", "rawValue": base64.b64encode(b"\x00").decode()}) == b"\x00"
    assert secret_value({}) == b""
    for bad in ({"rawValue": "&"}, {"rawValue": "a"}, {"value": 1}):
        with pytest.raises(ApiError):
            secret_value(bad)


def test_a_function_is_named_with_and_without_its_namespace() -> None:
    assert [function_name(name) for name in ("f", "f.openfaas-fn", "f.other")] == ["f", "f", "f.other"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"name": "f"}, (0, 0, False)),
        ({"name": "f", "tail": "-1", "follow": "true"}, (0, 0, True)),
        ({"name": "f", "tail": "7", "follow": "0"}, (7, 0, False)),
        ({"name": "f.openfaas-fn", "since": "1970-01-01T00:00:01Z"}, (0, 1_000_000, False)),
        ({"name": "f", "since": "1970-01-01T01:00:01+01:00", "follow": "T"}, (0, 1_000_000, True)),
        ({"name": "f", "since": "1970-01-01T00:00:01"}, (0, 1_000_000, False)),
    ],
)
def test_which_lines_are_asked_for(parameters: dict[str, str], expected: tuple[int, int, bool]) -> None:
    query = LogQuery.of(parameters)
    assert (query.function, query.tail, query.since_us, query.follow) == ("f", *expected)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({}, "name"), ({"tail": "x"}, "tail"), ({"tail": "10001"}, "tail"), ({"since": "now"}, "since"),
        ({"follow": "yes"}, "follow"), ({"namespace": "x"}, "namespace"),
    ],
)  # fmt: skip
def test_lines_that_cannot_be_asked_for(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(ApiError) as caught:
        LogQuery.of(parameters if field == "name" else {"name": "f"} | parameters)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_lines_are_objects_one_a_line() -> None:
    lines = [
        FunctionLine("i-1", LogLine(time_us=1_500_000, text="ünë")),
        FunctionLine("i-2", LogLine(time_us=2_000_000)),
    ]
    assert [json.loads(line) for line in rendered("f", lines).splitlines()] == [
        {
            "name": "f",
            "namespace": "openfaas-fn",
            "instance": "i-1",
            "timestamp": "1970-01-01T00:00:01.500000Z",
            "text": "ünë\n",
        },
        {
            "name": "f",
            "namespace": "openfaas-fn",
            "instance": "i-2",
            "timestamp": "1970-01-01T00:00:02Z",
            "text": "\n",
        },
    ]
