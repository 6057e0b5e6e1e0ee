"""Bodies over the inline limit, with both clients and the fake server."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import homing
from homing._core.payload import MAX_INLINE
from homing.testing import FakeServer
from support.sdk_driver import Driver

LARGE = b"0123456789abcdef" * (3 * 2**20 // 16) + b"x"
TEXT = "é" * MAX_INLINE


@pytest.fixture
def client(driver: Driver, homing_fake: FakeServer) -> Any:
    homing_fake.function("echo").answers(lambda call: call.payload)
    return driver.client()


def test_a_call_takes_and_brings_them(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    assert driver.do(client.invoke, "echo", LARGE).data == LARGE
    handle = driver.do(client.invoke_async, "echo", TEXT)
    assert driver.do(handle.result, 10).text == TEXT
    assert driver.do(handle.result, 10).text == TEXT
    assert [call.payload for call in homing_fake.calls("echo")] == [LARGE, TEXT.encode()]


def test_so_do_batches_maps_and_reruns(driver: Driver, client: Any) -> None:
    handles = driver.do(client.invoke_batch, "echo", [LARGE, "small", LARGE + b"y"])

    assert [driver.do(handle.result, 10).data for handle in handles] == [LARGE, b"small", LARGE + b"y"]
    assert [result.data for result in driver.rest(client.map("echo", [LARGE, b"1"]))] == [LARGE, b"1"]
    again = driver.do(handles[1].rerun, payload=LARGE)
    assert driver.do(again.result, 10).data == LARGE


def test_a_record_is_whole_and_a_list_refers_to_them(driver: Driver, client: Any) -> None:
    handle = driver.do(client.invoke_async, "echo", LARGE)
    driver.do(handle.wait, 10)

    record = driver.do(client.get, handle.id, include_payload=True)
    (listed,) = driver.rest(client.list_invocations(include_result=True, include_payload=True))

    assert (record.result.data, record.result.blob, record.payload.data) == (LARGE, None, LARGE)
    assert (listed.result.data, listed.result.blob.size, listed.payload.blob.size) == (b"", len(LARGE), len(LARGE))
    for body in (listed.result, listed.result.blob, listed.payload, record.result):
        assert driver.do(client.read_payload, body) == LARGE
    with pytest.raises(TypeError, match="must be an Answer, a Payload or a Blob, not bytes"):
        driver.do(client.read_payload, b"x")
    with pytest.raises(homing.NotFoundError, match="there is no stored body 'gone'"):
        driver.do(client.read_payload, homing.Blob(id="gone", size=1, sha256=b""))


def test_what_is_told_by_an_error_is_whole_too(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("broken").fails(value=LARGE, retry=False)

    with pytest.raises(homing.FunctionError) as failed:
        driver.do(client.invoke, "broken")

    assert failed.value.result is not None
    assert failed.value.result.data == LARGE


def test_an_upload_is_repeated_while_the_server_is_away(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.refuse("WritePayload", times=2)
    homing_fake.refuse("ReadPayload", times=2)

    assert driver.do(client.invoke, "echo", LARGE).data == LARGE


def test_an_upload_that_fails_refuses_its_request_alone(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.refuse("WritePayload", grpc.StatusCode.PERMISSION_DENIED)

    refused, accepted = driver.do(client.invoke_batch, "echo", [LARGE, "small"])

    assert isinstance(refused, homing.PermissionDeniedError)
    assert refused.request_id
    assert driver.do(accepted.result, 10).text == "small"


def test_uploads_that_break_off_tell_why_the_server_refused_them(
    driver: Driver, client: Any, homing_fake: FakeServer
) -> None:
    homing_fake.refuse("WritePayload", grpc.StatusCode.PERMISSION_DENIED, times=100)

    refused = driver.do(client.invoke_batch, "echo", [LARGE] * 100)

    assert {type(error) for error in refused} == {homing.PermissionDeniedError}
