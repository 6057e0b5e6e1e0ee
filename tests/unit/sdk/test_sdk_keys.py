"""API keys, with both clients, against servers that answer as told."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import homing
from homing.testing import FakeServer
from homing.v1 import key_service_pb2 as api
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_AWAY")


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def test_a_key_is_asked_for_as_told(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    key = api.Key(id="1f0c9a3b5d7e", name="shop", scopes=[api.SCOPE_INVOKE, 99], functions=["f"], max_per_second=2.5)  # type: ignore[list-item]
    scripted_server.script("CreateKey", api.CreateKeyResponse(key=key, secret="hk_x"))
    end = datetime(2030, 1, 1, tzinfo=UTC)

    made = driver.do(
        client.keys.create,
        "shop",
        scopes=["invoke", homing.Scope.READ],
        functions=["f"],
        max_per_second=2.5,
        expires=end,
    )

    (request,) = scripted_server.requests["CreateKey"]
    assert list(request.key.scopes) == [api.SCOPE_INVOKE, api.SCOPE_READ]
    assert (request.key.name, list(request.key.functions), request.key.max_per_second) == ("shop", ["f"], 2.5)
    assert request.key.expire_time.ToDatetime(UTC) == end
    assert made.secret == "hk_x"
    assert "hk_x" not in repr(made)
    assert made.api_key.scopes == (homing.Scope.INVOKE, homing.Scope.UNKNOWN)
    assert (made.api_key.functions, made.api_key.max_per_second, made.api_key.expire_time) == (("f",), 2.5, None)


def test_it_may_end_after_a_while(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("CreateKey", api.CreateKeyResponse(key=api.Key(name="a")))
    for expires in (timedelta(hours=1), 3600):
        driver.do(client.keys.create, "a", scopes=["read"], expires=expires)
    for request in scripted_server.requests["CreateKey"]:
        left = request.key.expire_time.ToDatetime(UTC) - datetime.now(UTC)
        assert timedelta(minutes=59) < left <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scopes": ["everything"]}, homing.InvalidRequestError, "scopes: must be among invoke, read, operate"),
        ({"scopes": ["unknown"]}, homing.InvalidRequestError, "scopes: must be among"),
        ({"scopes": "read"}, TypeError, "scopes must be a list of str"),
        ({"scopes": ["read"], "functions": "f"}, TypeError, "functions must be a list of str"),
        ({"scopes": ["read"], "expires": 0}, homing.InvalidRequestError, "expires: must be more than 0 s"),
        ({"scopes": ["read"], "expires": datetime(2030, 1, 1)}, homing.InvalidRequestError, "expires: .*time zone"),  # noqa: DTZ001
    ],
    ids=str,
)
def test_bad_arguments_are_named(
    driver: Driver, client: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        driver.do(client.keys.create, "a", **arguments)


def test_a_key_is_asked_for_again_under_one_request_id(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    made = api.CreateKeyResponse(key=api.Key(name="a"), secret="hk_x", duplicate=True)
    scripted_server.script("CreateKey", AWAY, AWAY, made)

    assert driver.do(client.keys.create, "a", scopes=["read"], expires=60).duplicate

    first, *others = scripted_server.requests["CreateKey"]
    assert others == [first, first]
    assert uuid.UUID(first.request_id)


def test_who_gives_up_knows_what_to_ask_again_with(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    gone = Refusal(code=grpc.StatusCode.INTERNAL, reason="INTERNAL")
    scripted_server.script("CreateKey", gone)

    with pytest.raises(homing.ServerError) as caught:
        driver.do(client.keys.create, "a", scopes=["read"], request_id="mine")
    assert caught.value.request_id == "mine"
    with pytest.raises(homing.ServerError) as caught:
        driver.do(client.keys.create, "a", scopes=["read"])

    assert [request.request_id for request in scripted_server.requests["CreateKey"]] == [
        "mine",
        caught.value.request_id,
    ]


def test_a_revocation_is_not_retried(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("RevokeKey", AWAY)
    with pytest.raises(homing.UnavailableError):
        driver.do(client.keys.revoke, "a")
    assert len(scripted_server.requests["RevokeKey"]) == 1


def test_a_fake_server_makes_a_key_once_under_a_request_id(driver: Driver) -> None:
    with FakeServer() as fake:
        client: Any = driver.client(fake.target)
        made = driver.do(client.keys.create, "a", scopes=["read"], request_id="once")
        again = driver.do(client.keys.create, "a", scopes=["read"], request_id="once")
        assert (made.duplicate, again.duplicate) == (False, True)
        assert (made.secret, made.api_key) == (again.secret, again.api_key)
        with pytest.raises(homing.AlreadyExistsError) as reused:
            driver.do(client.keys.create, "b", scopes=["read"], request_id="once")
        assert reused.value.reason == "REQUEST_ID_REUSED"
        driver.do(client.keys.revoke, "a")
        with pytest.raises(homing.FailedPreconditionError, match="revoked"):
            driver.do(client.keys.create, "a", scopes=["read"], request_id="once")


def test_a_fake_server_keeps_keys(driver: Driver) -> None:
    with FakeServer() as fake:
        client: Any = driver.client(fake.target)
        made = driver.do(client.keys.create, "b", scopes=["read"])
        driver.do(client.keys.create, "a", scopes=["admin"])
        with pytest.raises(homing.AlreadyExistsError):
            driver.do(client.keys.create, "a", scopes=["read"])
        assert [key.name for key in driver.rest(client.keys.list())] == ["a", "b"]
        assert driver.do(client.keys.revoke, made.api_key.id).name == "b"
        with pytest.raises(homing.NotFoundError):
            driver.do(client.keys.revoke, "b")
