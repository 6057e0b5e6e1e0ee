"""Requests over HTTP become calls of the API, whatever anybody sends, and their outcomes answers."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import structlog.testing
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from homing.v1.key_service_pb2 import SCOPE_INVOKE
from homing_core.limits import KIB, MIB
from homing_server.auth.identity import ANONYMOUS, Identity
from homing_server.auth.refusals import Refusals
from homing_server.auth.scopes import ALL_SCOPES, PUBLIC_METHODS, SCOPES, scopes_of
from homing_server.errors import ApiError, Code, ErrorReason, function_not_found, unavailable
from homing_server.front.api import serving
from homing_server.front.api.caller import caller
from homing_server.front.api.calls import Calls
from homing_server.front.api.requests import Readers
from homing_server.front.api.services import SERVICES
from homing_server.front.api.serving import Serving
from homing_server.front.http.rest import streams
from homing_server.front.http.rest.app import Rest
from homing_server.front.http.rest.routes import ROUTES, Form, Route, read_path, shape_of
from support.asgi import Answer, Request, ask

METHODS: Mapping[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}
JSON = {"Content-Type": "application/json"}
PATIENCE = 20.0


class Service:
    """Notes what it is asked for, and answers as it is told to."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.contexts: list[Any] = []
        self.callers: list[Identity] = []
        self.error: Exception | None = None
        self.answers: list[Any] = []
        """What a stream has; or what is answered, one by one."""
        self.goes_on = asyncio.Event()
        """Cleared, it waits before it ends."""
        self.goes_on.set()
        self.waits = asyncio.Event()
        self.ended = asyncio.Event()

    def __iter__(self) -> Iterator[tuple[ServiceDescriptor, object]]:
        return ((service, Methods(self, service)) for service in SERVICES)

    async def end(self) -> None:
        self.waits.set()
        try:
            await self.goes_on.wait()
        finally:
            self.ended.set()
        if self.error is not None:
            raise self.error


class Methods:
    """The methods of one service."""

    def __init__(self, service: Service, described: ServiceDescriptor) -> None:
        self._service = service
        self._described = described

    def __getattr__(self, name: str) -> Any:
        method = self._described.methods_by_name[name]
        answer = GetMessageClass(method.output_type)
        service = self._service

        async def one(request: Any, context: Any) -> Message:
            service.contexts.append(context)
            service.callers.append(caller())
            if method.client_streaming:
                service.requests.extend([each async for each in request])
            else:
                service.requests.append(request)
            await service.end()
            return service.answers.pop(0) if service.answers else answer()

        async def many(request: Message, context: Any) -> AsyncIterator[Any]:
            service.requests.append(request)
            for each in service.answers or [answer()]:
                yield each
            await service.end()

        return many if method.server_streaming else one


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def rest(service: Service) -> Iterator[Rest]:
    readers = Readers()
    yield Rest(service, Serving(Calls(), Refusals()), readers)
    readers.close()


def target_of(route: Route, *values: str) -> str:
    """Return a path of a route with these values in it."""
    path = shape_of(route)
    for value in values or ["x"] * len(route.variables):
        path = path.replace("{}", quote(value, safe=""), 1)
    return path


def error_of(answer: Answer) -> dict[str, Any]:
    """Return an error, which has the shape that all have."""
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json["error"]
    assert set(error) == {"code", "message", "status", "details"}
    assert error["code"] == answer.status
    assert error["status"] in Code.__members__
    info = error["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "homing.dev"
    assert info["reason"] in ErrorReason.__members__
    return error


def violations(answer: Answer) -> dict[str, str]:
    return {
        violation["field"]: violation["description"]
        for detail in error_of(answer)["details"]
        for violation in detail.get("fieldViolations", ())
    }


# Routes.


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


@pytest.mark.parametrize(
    ("raw", "path", "values"),
    [
        (b"/v1/invocations", "/v1/invocations", ()),
        (b"/v1/invocations:batch", "/v1/invocations:batch", ()),
        (b"/v1/invocations/7", "/v1/invocations/{}", ("7",)),
        (b"/v1/invocations/7:stop", "/v1/invocations/{}:stop", ("7",)),
        (b"/v1/invocations/a:b:stop", "/v1/invocations/{}:stop", ("a:b",)),
        (b"/v1/invocations/7%3Astop", "/v1/invocations/{}", ("7:stop",)),
        (b"/v1/invocations/a%2Fb%20c/logs", "/v1/invocations/{}/logs", ("a/b c",)),
        (b"/v1/invocations/a:b/logs", "/v1/invocations/{}/logs", ("a:b",)),
        (b"/v1/invocations/%FF", "/v1/invocations/{}", ("\ufffd",)),
        (b"/v1/invocations/", "", ()),
        (b"/v1//stop", "/v1//{}", ("stop",)),
    ],
)
def test_a_path_is_taken_apart_as_it_was_sent(raw: bytes, path: str, values: tuple[str, ...]) -> None:
    assert read_path(raw) == (path, values)


# Requests.

_TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
_SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=5),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
}


@st.composite
def messages(draw: st.DrawFn, kind: Descriptor) -> Message:
    """Draw a message."""
    if kind.full_name == "google.protobuf.FieldMask":
        return GetMessageClass(kind)(paths=draw(st.lists(st.sampled_from(["image", "on_success", "env"]), unique=True)))
    if kind.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return GetMessageClass(kind)(seconds=draw(st.integers(0, 10**9)), nanos=draw(st.integers(0, 10**9 - 1)))
    message = GetMessageClass(kind)()
    used: set[str] = set()
    for field in kind.fields:
        if not draw(st.booleans()) or (field.containing_oneof is not None and field.containing_oneof.name in used):
            continue
        if field.containing_oneof is not None:
            used.add(field.containing_oneof.name)
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            getattr(message, field.name).update(draw(st.dictionaries(_TEXT, _TEXT, max_size=2)))
        elif inner is not None and field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(messages(inner), max_size=2)))
        elif inner is not None:
            getattr(message, field.name).CopyFrom(draw(messages(inner)))
        else:
            enum = field.enum_type
            value = _SCALARS[field.type] if enum is None else st.sampled_from([each.number for each in enum.values])
            drawn = draw(st.lists(value, max_size=2) if field.is_repeated else value)
            if field.is_repeated:
                getattr(message, field.name).extend(drawn)
            else:
                setattr(message, field.name, drawn)
    return message


def set_field(message: Any, path: str, value: str) -> None:
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    setattr(message, last, value)


def take(fields: dict[str, Any], path: str) -> None:
    if path.partition(".")[0] not in fields:
        path = re.sub("_([a-z])", lambda found: found[1].upper(), path)
    *outer, last = path.split(".")
    for name in outer:
        fields = fields[name]
    del fields[last]


def parameters(value: Any, name: str, kind: Descriptor | None) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a query that say what a JSON value says."""
    if isinstance(value, list):
        for each in value:
            yield from parameters(each, name, None)
    elif isinstance(value, dict):
        for key, each in value.items():
            field = None if kind is None else next((f for f in kind.fields if key in (f.json_name, f.name)), None)
            inner = None if field is None else field.message_type
            is_map = field is not None and inner is not None and inner.GetOptions().map_entry
            if is_map:
                yield from ((f"{name}.{key}[{entry}]".removeprefix("."), text) for entry, text in each.items())
            else:
                yield from parameters(each, f"{name}.{key}".removeprefix("."), inner)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    else:
        yield name, str(value)


def pruned(value: Any) -> Any:
    """Return JSON without what a query cannot say: messages in which nothing is set."""
    if not isinstance(value, dict):
        return value
    return {name: inner for name, each in value.items() if (inner := pruned(each)) != {}}


@pytest.mark.parametrize("name", [name for name, route in ROUTES.items() if route.form is not Form.UPLOAD])
def test_every_request_of_every_method_can_be_asked_for(name: str) -> None:
    route, method = ROUTES[name], METHODS[name]
    service, readers = Service(), Readers()
    rest = Rest(service, Serving(Calls(), Refusals()), readers)

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        request=messages(method.input_type),
        value=st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
        as_in_proto=st.booleans(),
    )
    def check(request: Message, value: str, *, as_in_proto: bool) -> None:
        for variable in route.variables:
            set_field(request, variable, value)
        fields = MessageToDict(request, preserving_proto_field_name=as_in_proto)
        for variable in route.variables:
            take(fields, variable)
        body = fields if route.body == "*" else fields.pop(route.body, {}) if route.body else {}
        query = "" if route.body == "*" else urlencode(list(parameters(fields, "", method.input_type)))
        target = f"{target_of(route, *[value] * len(route.variables))}?{query}"
        answer = asyncio.run(
            ask(rest, route.verb, target, headers=JSON, body=json.dumps(body).encode() if route.body else b"")
        )
        if answer.status == 400:
            # More than there may be of something: the checks of all fronts say so.
            assert "at most" in answer.json["error"]["message"], answer
            return
        assert answer.status == 200, answer
        asked = service.requests.pop()
        assert pruned(MessageToDict(asked)) == pruned(MessageToDict(request))

    check()
    readers.close()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def names_of(kind: Descriptor) -> list[str]:
    return [field.json_name for field in kind.fields]


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_whatever_is_sent_is_answered_and_never_as_a_fault_of_the_server(name: str) -> None:
    route, method = ROUTES[name], METHODS[name]
    service, readers = Service(), Readers()
    rest = Rest(service, Serving(Calls(), Refusals()), readers)
    known = st.sampled_from([*names_of(method.input_type), "spec.payload", "filter.labels[a]", "x"])
    object_ = st.dictionaries(known, _JSON, max_size=4).map(lambda value: json.dumps(value).encode())
    body = object_ | _JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)
    query = st.lists(st.tuples(known, st.text(max_size=4)), max_size=3).map(urlencode) | st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=12
    )

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(body=body, query=query, value=st.text(st.characters(codec="utf-8"), max_size=5))
    def check(body: bytes, query: str, value: str) -> None:
        target = f"{target_of(route, *[value] * len(route.variables))}?{query}"
        headers = JSON | {"Content-Length": str(len(body))}
        answer = asyncio.run(ask(rest, route.verb, target, headers=headers, body=body))
        assert answer.status < 500, answer
        if answer.status != 200:
            error_of(answer)

    check()
    readers.close()


SCHEDULE = "/v1/functions/resize:invokeAsync"


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        (b'{"paylaod": {}}', "spec.paylaod", "there is no such field"),
        (b'{"payload": {"dat": "x"}}', "spec.payload.dat", "there is no such field"),
        (b'{"http": {"headers": [{"nam": "x"}]}}', "spec.http.headers[0].nam", "there is no such field"),
        (b'{"payload": {"data": 5}}', "spec.payload.data", "must be base64"),
        (b'{"payload": {"contentType": 5}}', "spec.payload.contentType", "must be text"),
        (b'{"delay": "soon"}', "spec.delay", "must be a number of seconds with an s behind it, 1.5s"),
        (b'{"scheduleTime": "noon"}', "spec.scheduleTime", "must be a time as RFC 3339 has it, 2026-01-31T12:00:00Z"),
        (b'{"labels": ["x"]}', "spec.labels", "must be an object"),
        (b'{"function": "other"}', "spec.function", "must be what the path says, or not be said"),
        (b'{"payload": "x"}', "spec.payload", "must be an object"),
    ],
)
async def test_a_body_that_says_something_else_is_told_where(rest: Rest, body: bytes, field: str, says: str) -> None:
    answer = await ask(rest, "POST", SCHEDULE, headers=JSON, body=body)
    assert (answer.status, violations(answer)) == (400, {field: says})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("size=5", "size"),
        ("filter.function=x", "filter.function"),
        ("filter=x", "filter"),
        ("pageSize=many", "pageSize"),
        ("pageSize=1&pageSize=2", "pageSize"),
        ("includeResult=1", "includeResult"),
        ("filter.states=RUNNING", "filter.states[0]"),
        ("filter.labels=x", "filter.labels"),
        ("pageSize[a]=5", "pageSize[a]"),
        ("filter.labels[a]=1&filter.labels[a]=2", "filter.labels[a]"),
        ("filter.states.x=1", "filter.states.x"),
        ("order=UPWARDS", "order"),
    ],
)
async def test_a_parameter_that_there_is_not_is_told(rest: Rest, query: str, field: str) -> None:
    answer = await ask(rest, "GET", f"/v1/invocations?{query}")
    assert (answer.status, list(violations(answer))) == (400, [field])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a"', "the body is no JSON"),
        (b"[]", "must be a JSON object"),
        (b'"\xff"', "not UTF-8"),
        (b'{"labels": {}, "labels": {}}', "a name twice"),
        (b'{"delay": NaN}', "NaN is no number"),
        (b"[" * 100_000, "levels deep"),
        (b'{"x":' * 40 + b"1" + b"}" * 40, "levels deep"),
        (b'{"labels": {' + b",".join(b'"%d":""' % n for n in range(5_001)) + b"}}", "at most 5000 values"),
        (b'{"x": ' + b"9" * 5_000 + b"}", "no JSON"),
    ],
)
async def test_what_is_no_request_is_refused_before_it_costs_much(rest: Rest, body: bytes, says: str) -> None:
    answer = await ask(rest, "POST", SCHEDULE, headers=JSON, body=body)
    assert answer.status == 400
    assert says in error_of(answer)["message"]


async def test_texts_may_have_what_would_else_be_counted(rest: Rest, service: Service) -> None:
    text = '{[,:\\"' * 6_000
    answer = await ask(rest, "POST", SCHEDULE, headers=JSON, body=json.dumps({"labels": {"a": text}}).encode())
    assert answer.status == 200, answer
    assert service.requests[0].spec.labels == {"a": text}  # type: ignore[attr-defined]


async def test_a_body_over_the_limit_is_not_even_taken_in(rest: Rest, service: Service) -> None:
    limit = 512 * KIB
    over = b'{"reason": "' + b"x" * limit + b'"}'
    stop = "/v1/invocations/7:stop"
    for headers in (JSON, JSON | {"Content-Length": str(len(over))}):
        answer = await ask(rest, "POST", stop, headers=headers, body=over)
        assert answer.status == 413
        assert str(limit) in error_of(answer)["message"]
    assert service.requests == []


async def test_large_requests_and_answers_are_read_and_written_by_a_thread(rest: Rest, service: Service) -> None:
    data = b"x" * MIB
    answers = GetMessageClass(METHODS["/homing.v1.InvocationService/InvokeAsync"].output_type)()
    answers.invocation.result.payload.data = data  # type: ignore[attr-defined]
    service.answers.append(answers)
    body = json.dumps({"payload": {"data": base64.b64encode(data).decode()}}).encode()
    answer = await ask(rest, "POST", SCHEDULE, headers=JSON, body=body)
    assert service.requests[0].spec.payload.data == data  # type: ignore[attr-defined]
    assert base64.b64decode(answer.json["invocation"]["result"]["payload"]["data"]) == data


# What HTTP has words for.


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


async def test_what_reads_takes_no_body(rest: Rest) -> None:
    answer = await ask(rest, "GET", "/v1/invocations", headers=JSON, body=b'{"filter": {}}')
    assert answer.status == 400
    answer = await ask(rest, "POST", "/v1/invocations/7:stop?reason=x", headers=JSON, body=b"{}")
    assert answer.status == 400


# Who may.


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


# Errors.


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


# Streams.


def events_of(answer: Answer) -> list[dict[str, str]]:
    """Return server-sent events as their fields."""
    return [
        dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        for block in answer.body.decode().split("\n\n")
        if block
    ]


def watched(token: str, **fields: Any) -> bytes:
    message: Any = GetMessageClass(METHODS["/homing.v1.InvocationService/WatchResults"].output_type)(resume_token=token)
    if fields:
        message.invocation.id = fields["id"]
    else:
        message.bookmark.SetInParent()
    raw: bytes = message.SerializeToString()
    return raw


async def test_a_watch_is_events_that_say_where_to_go_on(rest: Rest, service: Service) -> None:
    service.answers = [watched("t1"), watched("t2", id="7\n8")]
    answer = await ask(rest, "GET", "/v1/results:watch?resumeToken=old", headers={"Last-Event-ID": "t0"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    retry, bookmark, invocation = events_of(answer)
    assert retry == {"retry": "1000"}
    assert (bookmark["id"], bookmark["event"]) == ("t1", "bookmark")
    assert (invocation["id"], invocation["event"]) == ("t2", "invocation")
    assert json.loads(invocation["data"]) == {"resumeToken": "t2", "invocation": {"id": "7\n8"}}
    (request,) = service.requests
    assert request.resume_token == "t0"  # type: ignore[attr-defined]


async def test_a_stream_that_fails_before_it_begins_is_an_error(rest: Rest) -> None:
    answer = await ask(rest, "GET", "/v1/results:watch?nothing=1")
    assert answer.status == 400
    error_of(answer)


async def test_a_stream_that_fails_midway_says_why(rest: Rest, service: Service) -> None:
    service.error = unavailable(ErrorReason.SERVER_STOPPING, "the server stops", retry_after=2)
    service.answers = [watched("t1")]
    *_, last = events_of(await ask(rest, "GET", "/v1/results:watch"))
    assert (last["event"], last["retry"]) == ("error", "2000")
    assert json.loads(last["data"])["error"]["code"] == 503
    service.answers = []
    lines = (await ask(rest, "POST", "/v1/invocations:bulkStop")).lines
    assert json.loads(lines[0]) == {}
    assert json.loads(lines[1])["error"]["details"][0]["reason"] == "SERVER_STOPPING"


async def test_a_stream_that_nobody_reads_is_cut_off(
    rest: Rest, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "UNREAD_SECONDS", 0.1)
    service.answers = [watched("t1")]
    request = Request("GET", "/v1/results:watch")
    request.takes = 2
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ClientDisconnect) as caught:
            await request.to(rest)
    assert isinstance(caught.value.__cause__, ApiError)
    assert caught.value.__cause__.reason is ErrorReason.SLOW_CONSUMER


async def test_a_silent_stream_is_kept_alive(rest: Rest, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    service.goes_on.clear()
    service.answers = [watched("t1")]
    request = Request("GET", "/v1/results:watch")
    asking = asyncio.create_task(request.to(rest))
    async with asyncio.timeout(PATIENCE):
        await request.until(b":\n\n:\n\n")
        service.goes_on.set()
        await asking


async def test_a_log_is_numbered_lines_and_goes_on_after_the_last_one(rest: Rest, service: Service) -> None:
    line = GetMessageClass(METHODS["/homing.v1.LogService/TailLogs"].output_type)
    service.answers = [line(text=text) for text in "abc"]
    logs = "/v1/invocations/7/logs"
    _, *lines, end = events_of(await ask(rest, "GET", logs))
    assert [(each["id"], each["event"]) for each in lines] == [("1", "line"), ("2", "line"), ("3", "line")]
    assert [json.loads(each["data"])["text"] for each in lines] == ["a", "b", "c"]
    assert (end["event"], end["id"]) == ("end", "3-end")
    _, again, end = events_of(await ask(rest, "GET", logs, headers={"Last-Event-ID": "2"}))
    assert (again["id"], json.loads(again["data"])["text"], end["id"]) == ("3", "c", "3-end")
    over = await ask(rest, "GET", logs, headers={"Last-Event-ID": "3-end"})
    assert (over.status, over.body) == (204, b"")


@pytest.mark.parametrize("last", ["x", "-1", "1" * 20, "end", "²"])
async def test_an_id_that_no_line_has_is_refused(rest: Rest, last: str) -> None:
    answer = await ask(rest, "GET", "/v1/invocations/7/logs", headers={"Last-Event-ID": last})
    assert answer.status == 400
    assert "Last-Event-ID" in error_of(answer)["message"]


# Bodies as they are.


async def test_bytes_are_stored_as_they_come(rest: Rest, service: Service) -> None:
    body = b"\x00\xff" * MIB
    answer = await ask(rest, "POST", "/v1/payloads", headers={"Content-Length": str(len(body))}, body=body)
    assert answer.status == 200
    first, *parts = service.requests
    assert first.size == len(body)  # type: ignore[attr-defined]
    assert [len(part.data) for part in parts] == [MIB, MIB]  # type: ignore[attr-defined]
    assert b"".join(part.data for part in parts) == body  # type: ignore[attr-defined]


async def test_bytes_of_no_known_length_are_refused(rest: Rest) -> None:
    answer = await ask(rest, "POST", "/v1/payloads", body=b"x")
    assert answer.status == 411
    error_of(answer)


async def test_bytes_are_read_as_they_are(rest: Rest, service: Service) -> None:
    part = GetMessageClass(METHODS["/homing.v1.PayloadService/ReadPayload"].output_type)
    service.answers = [part(data=b"\x00"), part(data=b"\xff")]
    answer = await ask(rest, "GET", "/v1/payloads/7")
    assert (answer.headers["content-type"], answer.body) == ("application/octet-stream", b"\x00\xff")
    assert service.requests[0].blob_id == "7"  # type: ignore[attr-defined]
    service.error = unavailable(ErrorReason.BLOB_UNAVAILABLE, "the file is gone")
    with pytest.raises(ClientDisconnect):
        await ask(rest, "GET", "/v1/payloads/7")
