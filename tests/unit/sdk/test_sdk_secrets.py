"""Secrets and signing keys, with both clients, against servers that answer as told."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import homing
from homing.testing import FakeServer
from homing.v1 import secret_service_pb2 as api
from homing.v1.signing_key_service_pb2 import RotateSigningKeyResponse, SigningKey
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_AWAY")


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def test_a_value_is_text_or_bytes(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    answer = api.CreateSecretResponse(secret=api.Secret(name="a", version=1))
    scripted_server.script("CreateSecret", answer)

    made = driver.do(client.secrets.create, "a", "naïve")
    driver.do(client.secrets.create, "a", b"\xff")

    assert (made.name, made.version) == ("a", 1)
    assert [request.value for request in scripted_server.requests["CreateSecret"]] == ["naïve".encode(), b"\xff"]


def test_what_would_not_be_the_same_twice_is_not_repeated(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "CreateSecret": lambda: driver.do(client.secrets.create, "a", "x"),
        "DeleteSecret": lambda: driver.do(client.secrets.delete, "a"),
        "RevokeSigningKey": lambda: driver.do(client.signing_keys.revoke, "id"),
    }
    for method, call in calls.items():
        scripted_server.script(method, AWAY)
        with pytest.raises(homing.UnavailableError):
            call()
        assert len(scripted_server.requests[method]) == 1
    scripted_server.script("UpdateSecret", AWAY, api.UpdateSecretResponse(secret=api.Secret(name="a", version=3)))
    assert driver.do(client.secrets.update, "a", "x").version == 3


def test_a_rotation_is_asked_for_again_under_one_request_id(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    made = RotateSigningKeyResponse(signing_key=SigningKey(id="1"), key="whsec_abc", duplicate=True)
    scripted_server.script("RotateSigningKey", AWAY, made)

    assert driver.do(client.signing_keys.rotate).duplicate

    first, second = scripted_server.requests["RotateSigningKey"]
    assert first == second
    assert uuid.UUID(first.request_id)
    scripted_server.script("RotateSigningKey", Refusal(code=grpc.StatusCode.INTERNAL, reason="INTERNAL"))
    with pytest.raises(homing.ServerError) as caught:
        driver.do(client.signing_keys.rotate, request_id="mine")
    assert caught.value.request_id == "mine"


@pytest.mark.parametrize("value", [None, 1, bytearray(b"x"), ["x"]], ids=repr)
def test_other_values_are_refused(driver: Driver, client: Any, value: object) -> None:
    with pytest.raises(TypeError, match="value must be str or bytes"):
        driver.do(client.secrets.create, "a", value)


def test_a_value_that_is_no_text_is_not_told(driver: Driver, client: Any) -> None:
    with pytest.raises(homing.InvalidRequestError, match="value: is not valid Unicode text") as refused:
        driver.do(client.secrets.create, "a", "hunter2\ud800")
    assert refused.value.__context__ is None


def test_pages_are_put_together(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "ListSecrets",
        api.ListSecretsResponse(secrets=[api.Secret(name="a")], next_page_token="more"),
        api.ListSecretsResponse(secrets=[api.Secret(name="b")]),
    )

    assert [secret.name for secret in driver.rest(client.secrets.list())] == ["a", "b"]
    assert [request.page_token for request in scripted_server.requests["ListSecrets"]] == ["", "more"]


def test_a_key_is_told_once_and_not_shown_by_accident(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    key = SigningKey(id="1", function="f")
    scripted_server.script("RotateSigningKey", RotateSigningKeyResponse(signing_key=key, key="whsec_abc"))

    made = driver.do(client.signing_keys.rotate, function="f", key="whsec_abc")

    (request,) = scripted_server.requests["RotateSigningKey"]
    assert (request.function, request.key) == ("f", "whsec_abc")
    assert (made.key, made.signing_key.id, made.signing_key.function) == ("whsec_abc", "1", "f")
    assert "whsec_abc" not in repr(made)


def test_the_fake_server_keeps_secrets_as_a_real_one(driver: Driver, homing_fake: FakeServer) -> None:
    client = driver.client(homing_fake.target)
    with pytest.raises(homing.InvalidRequestError, match="'a'") as refused:
        driver.do(client.functions.deploy, name="f", image="f:1", secrets=["a"])
    assert refused.value.violations[0].field == "function.secrets"

    driver.do(client.secrets.create, "a", "1")
    with pytest.raises(homing.AlreadyExistsError):
        driver.do(client.secrets.create, "a", "1")
    assert driver.do(client.secrets.update, "a", "2").version == 2
    assert driver.do(client.functions.deploy, name="f", image="f:1", secrets=["a"]).secrets == ("a",)
    with pytest.raises(homing.FailedPreconditionError):
        driver.do(client.secrets.delete, "a")
    driver.do(client.functions.delete, "f")
    driver.do(client.secrets.delete, "a")
    with pytest.raises(homing.NotFoundError):
        driver.do(client.secrets.update, "a", "3")


def test_the_fake_server_keeps_two_signing_keys(driver: Driver, homing_fake: FakeServer) -> None:
    client = driver.client(homing_fake.target)
    made = [driver.do(client.signing_keys.rotate) for _ in range(3)]

    assert [key.id for key in driver.do(client.signing_keys.list)] == [key.signing_key.id for key in reversed(made[1:])]
    driver.do(client.signing_keys.revoke, made[1].signing_key.id)
    with pytest.raises(homing.NotFoundError):
        driver.do(client.signing_keys.revoke, made[1].signing_key.id)
    with pytest.raises(homing.FailedPreconditionError) as last:
        driver.do(client.signing_keys.revoke, made[2].signing_key.id)
    assert last.value.reason == "LAST_SIGNING_KEY"


def test_the_fake_server_rotates_once_under_a_request_id(driver: Driver, homing_fake: FakeServer) -> None:
    client = driver.client(homing_fake.target)
    first = driver.do(client.signing_keys.rotate, request_id="once")
    again = driver.do(client.signing_keys.rotate, request_id="once")

    assert (first.duplicate, again.duplicate, again.key) == (False, True, first.key)
    with pytest.raises(homing.AlreadyExistsError):
        driver.do(client.signing_keys.rotate, key="whsec_" + "A" * 32, request_id="once")
    driver.do(client.signing_keys.rotate)
    driver.do(client.signing_keys.rotate)
    assert not driver.do(client.signing_keys.rotate, request_id="once").duplicate, "it is not kept any more"
