"""What is sent over HTTP becomes requests of the API, whatever it is: paths, parameters and JSON, within bounds."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homing_core.limits import KIB, MIB
from homing_server.auth.refusals import Refusals
from homing_server.front.api.calls import Calls
from homing_server.front.api.requests import Readers
from homing_server.front.api.serving import Serving
from homing_server.front.http.rest.app import Rest
from homing_server.front.http.rest.routes import ROUTES, Form, read_path
from support.asgi import ask
from support.rest import JSON, METHODS, SCHEDULE, Service, error_of, target_of, violations


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
        (b'{"labels": ["x"]}', "spec.labels", "must be an object of which each value is text"),
        (b'{"labels": {"x": 1}}', "spec.labels", "must be an object of which each value is text"),
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
