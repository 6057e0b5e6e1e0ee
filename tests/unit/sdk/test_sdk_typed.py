"""Functions with types, with both clients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

import pydantic
import pytest

import homing
from homing.v1 import invocation_service_pb2
from support import records
from support.scripted_server import ScriptedServer
from support.sdk_driver import Driver


@dataclass(frozen=True, kw_only=True)
class ResizeIn:
    width: int
    tags: list[str]
    due: datetime | None = None


class ResizeOut(TypedDict):
    size: int


class Model(pydantic.BaseModel):
    width: int = pydantic.Field(gt=0)


DUE = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def answer(body: bytes) -> invocation_service_pb2.InvokeResponse:
    return invocation_service_pb2.InvokeResponse(invocation=records.invocation(body=body))


def waited(body: bytes) -> invocation_service_pb2.WaitInvocationResponse:
    return invocation_service_pb2.WaitInvocationResponse(invocation=records.invocation(body=body))


def test_values_go_and_come_as_their_types(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", answer(b'{"size": 7, "new": true}'))
    resize = client.function("resize", input=ResizeIn, output=ResizeOut)

    out = driver.do(resize, ResizeIn(width=10, tags=["a"], due=DUE), timeout=9, labels={"job": "7"})

    assert out == ResizeOut(size=7)
    [request] = scripted_server.requests["Invoke"]
    assert (request.spec.function, request.spec.labels) == ("resize", {"job": "7"})
    assert request.spec.payload.content_type == "application/json"
    assert request.spec.payload.data == b'{"width":10,"tags":["a"],"due":"2026-11-22T08:00:00+00:00"}'


@pytest.mark.parametrize(
    "case",
    [
        (str, "schön", "schön".encode(), "text/plain; charset=utf-8"),
        (bytes, b"\x00", b"\x00", "application/octet-stream"),
        (dict[str, int], {"a": 1}, b'{"a":1}', "application/json"),
        (Model, Model(width=3), b'{"width":3}', "application/json"),
        (None, None, b"", ""),
        (object, {"a": 1}, b'{"a":1}', "application/json"),
        (object, "text", b"text", "text/plain; charset=utf-8"),
    ],
    ids=str,
)
def test_how_inputs_travel(
    driver: Driver, client: Any, scripted_server: ScriptedServer, case: tuple[Any, object, bytes, str]
) -> None:
    kind, value, data, content_type = case
    scripted_server.script("Invoke", answer(b""))

    driver.do(client.function("f", input=kind, output=bytes), value)

    payload = scripted_server.requests["Invoke"][0].spec.payload
    assert (payload.data, payload.content_type) == (data, content_type)


@pytest.mark.parametrize(
    "case",
    [
        (str, b"ok", "ok"),
        (bytes, b"\x00", b"\x00"),
        (list[int], b"[1]", [1]),
        (Model, b'{"width": 3}', Model(width=3)),
        (None, b"", None),
        (object, b'"text"', "text"),
    ],
    ids=str,
)
def test_how_outputs_come(
    driver: Driver, client: Any, scripted_server: ScriptedServer, case: tuple[Any, bytes, object]
) -> None:
    kind, body, value = case
    scripted_server.script("Invoke", answer(body))

    assert driver.do(client.function("f", input=None, output=kind), None) == value


def test_the_whole_answer_may_be_the_output(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", answer(b"ok"))

    assert driver.do(client.function("f", input=str, output=homing.Result), "x").status_code == 200


@pytest.mark.parametrize(
    "case",
    [
        ({"width": 10, "tags": []}, "input", "must be ResizeIn, is dict {'width': 10, 'tags': []}"),
        (ResizeIn(width="10", tags=[]), "input.width", "must be int, is str '10'"),  # type: ignore[arg-type]
        (ResizeIn(width=1, tags=["a", None]), "input.tags[1]", "must be str, is NoneType None"),  # type: ignore[list-item]
    ],
    ids=str,
)
def test_a_wrong_value_fails_before_anything_is_sent(
    driver: Driver, client: Any, scripted_server: ScriptedServer, case: tuple[Any, str, str]
) -> None:
    value, field, rule = case
    resize = client.function("resize", input=ResizeIn, output=ResizeOut)

    for call in (resize, resize.invoke_async, lambda value: resize.invoke_batch([value])):
        with pytest.raises(homing.InvalidRequestError) as caught:
            driver.do(call, value)
        assert caught.value.violations == (homing.Violation(field, rule),)
        assert str(caught.value) == f"resize: {field}: {rule}"
    with pytest.raises(homing.InvalidRequestError):
        driver.rest(resize.map([value]))

    assert scripted_server.requests == {}


@pytest.mark.parametrize(
    "case",
    [
        (ResizeOut, b'{"size": "7"}', r"resize: result\.size: must be int, is str '7' \(invocation 0193"),
        (ResizeOut, b"oops", "resize: result: is not JSON: Expecting value"),
        (ResizeOut, b"", "resize: result: must be ResizeOut, is NoneType None"),
        (Model, b'{"width": 0}', r"resize: result\.width: Input should be greater than 0"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_kept(
    driver: Driver, client: Any, scripted_server: ScriptedServer, case: tuple[Any, bytes, str]
) -> None:
    kind, body, message = case
    scripted_server.script("Invoke", answer(body))

    with pytest.raises(homing.InvalidResultError, match=message) as caught:
        driver.do(client.function("resize", input=str, output=kind), "x")

    assert caught.value.result.data == body
    assert caught.value.result.invocation.id == records.INVOCATION_ID
    assert isinstance(caught.value, ValueError)


def test_a_handle_gives_the_output(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted())
    scripted_server.script("WaitInvocation", waited(b'{"size": 7}'))
    resize = client.function("resize", input=ResizeIn, output=ResizeOut)

    handle = driver.do(resize.invoke_async, ResizeIn(width=1, tags=[]), request_id="r1", max_age=60)

    assert handle.request_id == "r1"
    assert driver.do(handle.result) == {"size": 7}
    assert driver.do(client.handle(handle.id, output=ResizeOut).result) == {"size": 7}
    assert driver.do(client.handle(handle.id).result).text == '{"size": 7}'


def test_a_batch_gives_typed_handles(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    def accept(request: Any, _: Any) -> invocation_service_pb2.BatchInvokeAsyncResponse:
        Response = invocation_service_pb2.BatchInvokeAsyncResponse  # noqa: N806
        return Response(results=[Response.Result(accepted=records.accepted()) for _ in request.requests])

    scripted_server.script("BatchInvokeAsync", accept)
    scripted_server.script("WaitInvocation", waited(b'{"size": 7}'))
    resize = client.function("resize", input=ResizeIn, output=ResizeOut)

    handles = driver.do(resize.invoke_batch, [ResizeIn(width=n, tags=[]) for n in range(2)], labels={"a": "b"})

    assert [driver.do(handle.result) for handle in handles] == [{"size": 7}] * 2


@pytest.mark.parametrize("through", ["client", "function"])
def test_a_map_gives_outputs(driver: Driver, client: Any, scripted_server: ScriptedServer, through: str) -> None:
    scripted_server.script("InvokeAsync", records.accepted())
    scripted_server.script("WaitInvocation", waited(b'{"size": 7}'))
    resize = client.function("resize", input=ResizeIn, output=ResizeOut)
    items: Iterable[ResizeIn] = [ResizeIn(width=n, tags=[]) for n in range(3)]

    outputs = resize.map(items) if through == "function" else client.map(resize, items, labels={"a": "b"})

    assert driver.rest(outputs) == [{"size": 7}] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": 5, "input": str, "output": str}, "function must be str, not int"),
        ({"name": "f", "input": complex, "output": str}, "input: <class 'complex'> is no type that can be carried"),
        ({"name": "f", "input": str, "output": list[complex]}, r"output: \[\]: <class 'complex'> is no type"),
    ],
    ids=str,
)
def test_types_that_cannot_be_carried_are_refused_at_once(client: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        client.function(**options)


def test_it_says_which_function_it_is(client: Any) -> None:
    resize = client.function("resize", input=ResizeIn, output=ResizeOut)

    assert resize.name == "resize"
    assert repr(resize).endswith("TypedFunction resize>")
