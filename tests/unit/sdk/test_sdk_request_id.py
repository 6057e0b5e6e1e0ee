"""The ids of requests: chosen by the caller within one rule, by the SDK otherwise, sent by every call that has one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

import homing
from support.scripted_server import ScriptedServer
from support.sdk_driver import Driver

GOOD = ["a", "order-7", "x" * 128, "with blanks ~ and !"]
BAD = ["", "x" * 129, "näïve", "line\nbreak", "\x7f", "\u2028"]

CALLS: dict[str, Callable[[Any], tuple[Callable[..., Any], dict[str, Any]]]] = {
    "InvokeAsync": lambda client: (client.invoke_async, {"function": "f"}),
    "RerunInvocation": lambda client: (client.rerun, {"invocation_id": "0193"}),
    "BulkRerun": lambda client: (client.bulk_rerun, {"id_prefix": "0193"}),
    "BulkStop": lambda client: (client.bulk_stop, {"id_prefix": "0193"}),
    "RedriveDeadLetters": lambda client: (client.dead_letters.redrive, {"function": "f"}),
    "PurgeDeadLetters": lambda client: (client.dead_letters.purge, {"function": "f"}),
    "CreateKey": lambda client: (client.keys.create, {"name": "k", "scopes": ["read"]}),
    "RotateSigningKey": lambda client: (client.signing_keys.rotate, {}),
}


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


@pytest.mark.parametrize("method", CALLS)
def test_each_call_has_an_id_of_its_own_or_the_callers(
    driver: Driver, client: Any, scripted_server: ScriptedServer, method: str
) -> None:
    call, arguments = CALLS[method](client)
    for request_id in (None, None, *GOOD):
        options = {} if request_id is None else {"request_id": request_id}
        with pytest.raises(homing.RequestError) as caught:  # nothing is scripted
            driver.do(call, **arguments, **options)
        assert caught.value.request_id == scripted_server.requests[method][-1].request_id

    first, second, *given = (request.request_id for request in scripted_server.requests[method])
    assert uuid.UUID(first) != uuid.UUID(second)
    assert given == GOOD


@pytest.mark.parametrize("method", CALLS)
def test_a_bad_id_is_refused_before_anything_is_sent(
    driver: Driver, client: Any, scripted_server: ScriptedServer, method: str
) -> None:
    call, arguments = CALLS[method](client)
    for request_id in BAD:
        with pytest.raises(homing.InvalidRequestError, match="request_id: must be 1 to 128 printable ASCII"):
            driver.do(call, **arguments, request_id=request_id)
    with pytest.raises(TypeError, match="request_id must be str, not int"):
        driver.do(call, **arguments, request_id=7)

    assert scripted_server.requests == {}
