"""Callbacks and destinations, as both clients ask for them."""

from __future__ import annotations

from typing import Any

import pytest

import homing
from homing import InvocationRequest
from homing.testing import FakeServer
from support.sdk_driver import Driver

GOOD = [
    "https://example.com/done?x=1",
    "http://gateway/function/next",
    "function:next-1",
    "amqp:failures/figlet",
    "amqp:/queue",
    "amqp:topic/",
]
BAD = [
    "",
    "ftp://example.com/",
    "example.com",
    "HTTPS://example.com",
    "https://",
    "http:///path",
    "https://?x",
    "function:",
    "function:Next",
    "function:a/b",
    "amqp:queue",
    "amqp:/",
    "amqp:",
    "https://example.com/" + 2048 * "x",
]


@pytest.fixture
def client(driver: Driver, homing_fake: FakeServer) -> Any:
    for name in ("f", "next", "next-1"):
        homing_fake.function(name)
    return driver.client()


def test_they_go_along_with_every_asynchronous_invocation(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    options: Any = {
        "callback_url": "https://example.com/cb",
        "callback_headers": {"x-job": "7"},
        "on_success": "function:next",
        "on_failure": ("https://example.com/failed", "amqp:failures/f"),
    }

    driver.do(client.invoke_async, "f", **options)
    driver.do(client.invoke_batch, "f", ["one"], **options)
    driver.do(client.invoke_batch, [InvocationRequest(function="f", **options)])
    typed = client.function("f", input=str, output=str)
    driver.do(typed.invoke_async, "one", **options)
    driver.do(typed.invoke_batch, ["one"], **options)

    assert [
        (call.callback_url, dict(call.callback_headers), call.on_success, call.on_failure)
        for call in homing_fake.calls()
    ] == 5 * [
        (
            "https://example.com/cb",
            {"x-job": "7"},
            ("function:next",),
            ("https://example.com/failed", "amqp:failures/f"),
        )
    ]
    record = homing_fake.invocations()[0]
    assert (record.on_success, record.on_failure) == (
        homing_fake.calls()[0].on_success,
        homing_fake.calls()[0].on_failure,
    )
    assert (record.caused_by, record.depth) == (None, 0)


def test_functions_have_them_too(driver: Driver, client: Any) -> None:
    deployed = driver.do(
        client.functions.deploy, name="g", image="g:1", on_success=GOOD[:3], on_failure="amqp:failures/g", public=True
    )
    plain = driver.do(client.functions.deploy, name="h", image="h:1")

    assert (deployed.on_success, deployed.on_failure) == (tuple(GOOD[:3]), ("amqp:failures/g",))
    assert (deployed.public, plain.public) == (True, False)
    assert (plain.on_success, plain.on_failure) == ((), ())


@pytest.mark.parametrize("uri", GOOD)
def test_good_ones_are_sent(driver: Driver, client: Any, uri: str) -> None:
    assert driver.do(driver.do(client.invoke_async, "f", on_success=uri).describe).on_success == (uri,)


@pytest.mark.parametrize("uri", BAD, ids=lambda uri: uri[:30] or "empty")
def test_bad_ones_are_refused_before_anything_is_sent(
    driver: Driver, client: Any, homing_fake: FakeServer, uri: str
) -> None:
    with pytest.raises(homing.InvalidRequestError) as caught:
        driver.do(client.invoke_async, "f", on_failure=["function:next", uri])
    with pytest.raises(homing.InvalidRequestError):
        driver.do(client.functions.deploy, name="g", image="g:1", on_success=[uri])

    assert [violation.field for violation in caught.value.violations] == ["on_failure[1]"]
    assert homing_fake.calls() == ()


def test_there_are_at_most_eight(driver: Driver, client: Any) -> None:
    driver.do(client.invoke_async, "f", on_success=8 * ["function:next"])

    with pytest.raises(homing.InvalidRequestError, match="on_success: must be at most 8, are 9"):
        driver.do(client.invoke_async, "f", on_success=9 * ["function:next"])


def test_what_is_refused_is_not_repeated(driver: Driver, client: Any) -> None:
    with pytest.raises(homing.InvalidRequestError) as caught:
        driver.do(client.invoke_async, "f", on_success="postgres://user:hunter2@db/")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [1, b"function:next", [1], {"function:next"}], ids=repr)
def test_wrong_types_are_refused(driver: Driver, client: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="on_success"):
        driver.do(client.invoke_async, "f", on_success=value)
