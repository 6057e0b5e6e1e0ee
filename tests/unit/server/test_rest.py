"""Requests over HTTP become calls of the API, for whoever may make them, and their outcomes answers."""

from __future__ import annotations

import asyncio
import gzip

import pytest
import structlog.testing
from starlette.requests import ClientDisconnect

from homing.v1.key_service_pb2 import SCOPE_INVOKE
from homing_server.auth.identity import ANONYMOUS, Identity
from homing_server.auth.scopes import ALL_SCOPES, PUBLIC_METHODS, SCOPES, scopes_of
from homing_server.errors import ErrorReason, function_not_found, unavailable
from homing_server.front.http.rest.app import Rest
from homing_server.front.http.rest.routes import ROUTES, Form, shape_of
from support.asgi import Request, ask
from support.rest import JSON, METHODS, PATIENCE, SCHEDULE, Service, error_of, target_of


def test_every_method_has_a_route_of_its_own_that_follows_the_rules() -> None:
    assert set(ROUTES) == set(METHODS) == set(SCOPES)
    places = [(route.verb, shape_of(route)) for route in ROUTES.values()]
    assert len(set(places)) == len(places)
    for name, route in ROUTES.items():
        method = METHODS[name]
        streams_out = {Form.EVENTS, Form.LINES, Form.DOWNLOAD}
        assert method.server_streaming is (route.form in streams_out), name
        assert method.client_streaming is (route.form is Form.UPLOAD), name
        # What changes nothing can be asked for again by whoever stands between, and the other way round.
        reads = method.GetOptions().idempotency_level == method.GetOptions().NO_SIDE_EFFECTS
        assert reads is (route.verb == "GET"), name
        if route.form is Form.EVENTS:
            assert route.verb == "GET", "no browser's EventSource asks otherwise"
        # A segment is either a name of the API's or a value, and they take turns.
        segments = route.path.removeprefix("/v1/").partition(":")[0].split("/")
        assert all(segment.startswith("{") is bool(place % 2) for place, segment in enumerate(segments)), name


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_a_path_says_which_verbs_it_takes(rest: Rest, name: str) -> None:
    route = ROUTES[name]
    for verb in ("PATCH", "OPTIONS", "HEAD", "TRACE"):
        answer = await ask(rest, verb, target_of(route))
        assert answer.status == 405
        assert route.verb in answer.headers["allow"].split(", ")
        assert error_of(answer)["status"] == "UNIMPLEMENTED"


@pytest.mark.parametrize("path", ["/v1/", "/v1/nothing", "/v1/invocations/", "/v1/invocations/7/", "/v1//x", "/v1/%00"])
async def test_where_nothing_is_there_is_nothing(rest: Rest, path: str) -> None:
    answer = await ask(rest, "GET", path)
    assert answer.status == 404
    assert error_of(answer)["details"][0]["reason"] == "PATH_NOT_FOUND"
    assert (await ask(rest, "GET", path, identity=ANONYMOUS)).status == 401


@pytest.mark.parametrize(
    ("accept", "status"),
    [("*/*", 200), ("", 200), ("text/html, application/*;q=0.9", 200), ("application/json", 200), ("text/html", 406)],
)
async def test_a_client_gets_what_it_takes(rest: Rest, accept: str, status: int) -> None:
    answer = await ask(rest, "GET", "/v1/invocations", headers={"Accept": accept})
    assert answer.status == status
    lines = await ask(rest, "POST", "/v1/invocations:bulkStop", headers={"Accept": accept})
    assert lines.status == status
    if status != 200:
        error_of(answer)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
    ],
)
async def test_a_body_must_be_said_to_be_json(rest: Rest, content_type: str, status: int) -> None:
    for body in (b"{}", b""):
        answer = await ask(rest, "POST", SCHEDULE, headers={"Content-Type": content_type}, body=body)
        assert answer.status == status
    assert (await ask(rest, "POST", SCHEDULE, body=b"{}")).status == 415
    assert (await ask(rest, "POST", SCHEDULE)).status == 200


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("identity", 200), ("", 200)])
async def test_a_body_is_sent_as_it_is(rest: Rest, coding: str, status: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = await ask(
        rest, "POST", SCHEDULE, headers=headers, body=gzip.compress(b"{}") if coding == "gzip" else b"{}"
    )
    assert answer.status == status
    if status != 200:
        assert "no Content-Encoding 'gzip'" in error_of(answer)["message"]


async def test_what_reads_takes_no_body(rest: Rest) -> None:
    answer = await ask(rest, "GET", "/v1/invocations", headers=JSON, body=b'{"filter": {}}')
    assert answer.status == 400
    answer = await ask(rest, "POST", "/v1/invocations/7:stop?reason=x", headers=JSON, body=b"{}")
    assert answer.status == 400


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_every_route_needs_the_scope_of_its_method(rest: Rest, service: Service, name: str) -> None:
    route, needed = ROUTES[name], scopes_of(name)
    headers = {"Content-Length": "0"}
    for scope in sorted(ALL_SCOPES):
        identity = Identity(name="x", scopes=frozenset({scope}))
        answer = await ask(rest, route.verb, target_of(route), headers=headers, identity=identity)
        assert answer.status == (200 if scope in needed else 403), answer
        if scope not in needed:
            assert error_of(answer)["details"][0]["reason"] == "SCOPE_MISSING"
    answer = await ask(rest, route.verb, target_of(route), headers=headers, identity=ANONYMOUS)
    assert answer.status == (200 if name in PUBLIC_METHODS else 401)
    if answer.status == 401:
        assert answer.headers["www-authenticate"]


async def test_a_service_knows_who_calls_and_what_with(rest: Rest, service: Service) -> None:
    headers = {"traceparent": "00-" + "1" * 32, "X-Homing-Timeout": "2.5"}
    identity = Identity(name="me", scopes=frozenset({SCOPE_INVOKE}))
    service.goes_on.clear()
    asking = asyncio.create_task(Request("POST", SCHEDULE, headers=headers, identity=identity).to(rest))
    async with asyncio.timeout(PATIENCE):
        await service.waits.wait()
        (context,) = service.contexts
        assert context.traceparent() == headers["traceparent"]
        assert context.peer() == "127.0.0.1:5"
        assert 0 < context.time_remaining() <= 2.5
        service.goes_on.set()
        assert (await asking).status == 200
    assert service.callers == [identity]


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf", ""])
async def test_a_time_that_is_none_is_refused(rest: Rest, said: str) -> None:
    answer = await ask(rest, "POST", SCHEDULE, headers={"X-Homing-Timeout": said})
    assert answer.status == 400
    assert "X-Homing-Timeout" in error_of(answer)["message"]


async def test_an_error_says_what_it_says_over_grpc(rest: Rest, service: Service) -> None:
    service.error = function_not_found("resize")
    answer = await ask(rest, "POST", SCHEDULE)
    assert answer.json == {
        "error": {
            "code": 404,
            "message": "there is no function 'resize'",
            "status": "NOT_FOUND",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "FUNCTION_NOT_FOUND",
                    "domain": "homing.dev",
                    "metadata": {"function": "resize"},
                }
            ],
        }
    }


async def test_what_may_be_tried_again_says_when(rest: Rest, service: Service) -> None:
    service.error = unavailable(ErrorReason.STORE_UNAVAILABLE, "the store is away", retry_after=1.5)
    answer = await ask(rest, "POST", SCHEDULE)
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert error_of(answer)["details"][1]["retryDelay"] == "1.500s"


async def test_what_nobody_expected_is_logged_and_keeps_its_text_to_itself(rest: Rest, service: Service) -> None:
    service.error = KeyError("password=hunter2")
    with structlog.testing.capture_logs() as lines:
        answer = await ask(rest, "POST", SCHEDULE)
    assert answer.status == 500
    assert b"hunter2" not in answer.body
    assert [line["method"] for line in lines if line["event"] == "call_failed"] == [
        "/homing.v1.InvocationService/InvokeAsync"
    ]


async def test_what_changes_something_is_audited(rest: Rest, service: Service) -> None:
    with structlog.testing.capture_logs() as lines:
        await ask(rest, "POST", "/v1/invocations/7:stop")
        await ask(rest, "POST", "/v1/invocations/7:stop", identity=Identity(name="x", scopes=frozenset({SCOPE_INVOKE})))
    audited = [(line["action"], line["outcome"]) for line in lines if line["event"] == "audit"]
    assert audited == [("StopInvocation", "OK"), ("StopInvocation", "PERMISSION_DENIED")]


async def test_a_client_that_goes_away_cancels_its_call(rest: Rest, service: Service) -> None:
    service.goes_on.clear()
    for method, target in (("POST", SCHEDULE), ("GET", "/v1/results:watch")):
        service.waits.clear()
        service.ended.clear()
        request = Request(method, target)
        asking = asyncio.create_task(request.to(rest))
        async with asyncio.timeout(PATIENCE):
            await service.waits.wait()
            request.leave()
            with pytest.raises(ClientDisconnect):
                await asking
            await service.ended.wait()


async def test_a_key_that_is_revoked_ends_what_waits(rest: Rest, service: Service) -> None:
    identity = Identity(name="me", scopes=ALL_SCOPES)
    service.goes_on.clear()
    asking = asyncio.create_task(ask(rest, "POST", SCHEDULE, identity=identity))
    async with asyncio.timeout(PATIENCE):
        await service.waits.wait()
        identity.state.revoke()
        answer = await asking
    assert answer.status == 401
    assert error_of(answer)["details"][0]["reason"] == "KEY_INVALID"


async def test_a_batch_counts_for_what_is_in_it(rest: Rest) -> None:
    identity = Identity(name="me", scopes=ALL_SCOPES, max_per_second=1)
    for _ in range(3):
        assert (await ask(rest, "POST", "/v1/invocations:batch", identity=identity)).status == 200
    assert (await ask(rest, "GET", "/v1/functions", identity=identity)).status == 200
    answer = await ask(rest, "GET", "/v1/functions", identity=identity)
    assert answer.status == 429
    assert answer.headers["retry-after"]
