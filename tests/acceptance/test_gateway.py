"""The gateway as clients of OpenFaaS know it: a test for each thing that they rely on."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from homing import Client, InvocationState
from support.http_client import Headers, Reply
from support.processes import Cluster, Dev, Server
from support.receiver import receiver
from support.web_function import COOKIES, PATIENCE, Gateway, function_server

OF_THE_WAY = (
    "X-Forwarded-For",
    "X-Forwarded-Port",
    "tracestate",
    "X-Request-Id",
    "X-Amzn-Trace-Id",
    "X-B3-SpanId",
    "CF-Ray",
)
"""What proxies and load balancers say of a request, which may differ each time."""


@pytest.fixture(scope="module", params=["rabbitmq", "embedded"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway of two workers on RabbitMQ, or of `homing dev`."""
    with contextlib.ExitStack() as stack:
        server: Server
        if request.param == "rabbitmq":
            cluster: Cluster = request.getfixturevalue("shared_cluster")
            cluster.start_worker()
            server = cluster.server
        else:
            server = Dev(
                tmp_path_factory.mktemp("dev"),
                HOMING_FUNCTION_NETWORKS="127.0.0.0/8",
                HOMING_CALLBACK_NETWORKS="127.0.0.0/8",
            )
            server.start()
            stack.callback(server.terminate)
        client = stack.enter_context(Client(server.target, timeout=PATIENCE))
        function = stack.enter_context(function_server())
        client.functions.deploy(name="web", url=f"http://127.0.0.1:{function.server_port}")
        client.functions.deploy(name="echo", command=["cat"])
        client.functions.deploy(name="fails", command=["sh", "-c", "echo oops; exit 3"])
        yield Gateway(client=client, server=server, seen=function.seen, go_on=function.go_on)


# --- 1.1 Routes and methods


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_a_function_is_asked_by_the_method_of_its_caller(gateway: Gateway, method: str) -> None:
    reply = gateway.ask(method, "/function/web/a/b?c=d", body=b"body" if method in {"POST", "PUT", "PATCH"} else None)

    seen = gateway.next()
    assert (reply.status, seen.method, seen.path) == (200, method, "/a/b?c=d")
    assert reply.body == (b"" if method == "HEAD" else b"answer of " + seen.body)


def test_the_length_that_a_function_tells_head_is_passed_on(gateway: Gateway) -> None:
    large, empty, refused = (
        gateway.ask("HEAD", target)
        for target in ("/function/web/large/1000000", "/function/web/status/204", "/function/x")
    )

    assert (large.status, large.get("content-length"), large.body) == (200, "1000000", b"")
    assert (empty.status, empty.get_all("content-length")) == (204, [])
    assert (refused.status, refused.get_all("content-length") != []) == (404, True)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/function/web", "/"),
        ("/function/web/", "/"),
        ("/function/web?", "/"),
        ("/function/web?a=b&a=%00", "/?a=b&a=%00"),
        ("/function/web.openfaas-fn/x", "/x"),
        ("/function/web/a//b", "/a//b"),
        ("/function/web/a%2Fb%20%C3%A4/%00", "/a%2Fb%20%C3%A4/%00"),
        ("/function/web/../x", "/../x"),
        ("/function/web/function/web", "/function/web"),
    ],
)
def test_path_and_query_reach_the_function_as_they_are(gateway: Gateway, target: str, path: str) -> None:
    assert gateway.post(target).status == 200
    assert gateway.next().path == path


@pytest.mark.parametrize(
    "name", ["nothing", "web.other", "web.", "Web", "we%62", "web.openfaas-fn.openfaas-fn", "a" * 64]
)
def test_a_function_that_is_not_there_is_not_found(gateway: Gateway, name: str) -> None:
    for reply in (gateway.post(f"/function/{name}"), gateway.post(f"/async-function/{name}")):
        assert reply.status == 404
        assert b"there is no function" in reply.body


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "LINK", "PURGE"])
def test_odd_methods_are_not_allowed(gateway: Gateway, method: str) -> None:
    reply = gateway.ask(method, "/function/web")

    assert (reply.status, reply.get("allow")) == (405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
    for target in ("/system/functions", "/v1/functions", "/healthz", "/metrics"):
        elsewhere = gateway.ask(method, target)
        assert (elsewhere.status, "GET" in elsewhere.get("allow")) == (405, True)


def test_methods_that_are_none_of_http_are_not_implemented(gateway: Gateway) -> None:
    for target in ("/function/web", "/async-function/web", "/system/functions"):
        reply = gateway.ask("BREW", target)

        assert (reply.status, reply.text) == (501, "not implemented: the method is not known\n")
    assert gateway.seen.empty()


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS"])
def test_what_is_to_be_done_later_is_posted(gateway: Gateway, method: str) -> None:
    reply = gateway.ask(method, "/async-function/web")

    assert (reply.status, reply.get("allow")) == (405, "DELETE, POST")


# --- 1.2 Headers


def test_headers_pass_and_those_of_the_connection_do_not(gateway: Gateway) -> None:
    reply = gateway.post(
        "/function/web/headers",
        [
            ("X-Two", "1"),
            ("X-Two", "2, 3"),
            ("X-Odd", "grün"),
            ("Connection", "keep-alive, X-Of-Connection"),
            ("X-Of-Connection", "yes"),
            ("Proxy", "evil"),
            ("TE", "trailers"),
            ("Content-Type", "text/asked"),
            ("User-Agent", "mine"),
            ("Authorization", "Bearer of-the-function"),
            ("X-Forwarded-For", "10.1.2.3"),
            ("X-Start-Time", "1"),
            ("X-Homing-Attempt", "7"),
        ],
    )

    seen = gateway.next()
    names = ("x-two", "x-odd", "content-type", "user-agent", "authorization", "x-homing-attempt")
    assert [seen.get(name) for name in names] == [
        ["1", "2, 3"], ["gr\u00c3\u00bcn"], ["text/asked"], ["mine"], ["Bearer of-the-function"], ["1"]
    ]  # fmt: skip
    assert [seen.get(name) for name in ("x-of-connection", "proxy", "te")] == [[], [], []]
    assert seen.get("x-forwarded-for") == ["10.1.2.3, 127.0.0.1"]
    assert seen.get("x-forwarded-host") == [gateway.server.http]
    assert seen.get("x-forwarded-proto") == ["http"]
    assert reply.get_all("set-cookie") == list(COOKIES)
    assert (reply.get("location"), reply.get("x-duration-seconds")) == ("/elsewhere", "0.25")
    assert reply.get_all("x-of-connection") == []


def test_a_call_has_an_id_and_a_time_that_function_and_caller_see(gateway: Gateway) -> None:
    before = time.time_ns()
    reply = gateway.post("/function/web")

    seen = gateway.next()
    assert [reply.get("x-call-id")] == seen.get("x-call-id")
    assert [reply.get("x-start-time")] == seen.get("x-start-time")
    assert before <= int(reply.get("x-start-time")) <= time.time_ns()


@pytest.mark.parametrize("kind", ["function", "async-function"])
def test_the_id_that_a_caller_gives_is_kept(gateway: Gateway, kind: str) -> None:
    call_id = f"order-{kind}"
    reply = gateway.post(f"/{kind}/web", [("X-Call-Id", call_id)])

    assert (reply.get("x-call-id"), gateway.next().get("x-call-id")) == (call_id, [call_id])
    with gateway.client.watch_results(function="echo"):
        gateway.client.invoke_async("echo").result(PATIENCE)
    (record,) = gateway.client.list_invocations(call_id=call_id)
    assert record.function == "web"


def test_content_type_is_the_functions_else_the_requests(gateway: Gateway) -> None:
    types = [gateway.post(f"/function/web/{kind}", [("Content-Type", "text/asked")]) for kind in ("type", "plain")]

    assert [reply.get("content-type") for reply in types] == ["text/of-function", "text/asked"]


# --- 1.3 Answers of synchronous calls


@pytest.mark.parametrize("status", [201, 202, 204, 301, 304, 400, 404, 418, 429, 500, 503, 599])
def test_the_status_of_the_function_is_the_answers(gateway: Gateway, status: int) -> None:
    reply = gateway.post(f"/function/web/status/{status}")

    assert reply.status == status
    assert reply.body == (b"" if status in {204, 304} else b"answer of hi")
    assert gateway.next().path
    assert gateway.seen.empty(), "it is asked once"


@pytest.mark.parametrize("path", ["status/999", "status/600", "drip/999"])
def test_a_status_that_http_does_not_have_is_a_bad_gateway_with_the_answer(gateway: Gateway, path: str) -> None:
    gateway.go_on.set()
    reply = gateway.post(f"/function/web/{path}")

    assert (reply.status, reply.body) == (502, b"onetwo" if path.startswith("drip") else b"answer of hi")


def test_a_command_that_fails_answers_500_with_its_output(gateway: Gateway) -> None:
    reply = gateway.post("/function/fails")

    assert (reply.status, reply.body) == (500, b"oops\n")


def test_where_the_function_gives_no_answer_it_is_a_bad_gateway(gateway: Gateway) -> None:
    reply = gateway.post("/function/web/break")

    assert reply.status == 502
    assert reply.text.startswith("CONNECTION_LOST: ")
    assert reply.get("content-type").startswith("text/plain")


def test_an_attempt_that_takes_too_long_is_a_time_out(gateway: Gateway) -> None:
    gateway.go_on.clear()
    reply = gateway.post("/function/web/hold", [("X-Homing-Attempt-Timeout", "100ms")])
    gateway.go_on.set()

    assert reply.status == 504


def test_large_bodies_pass_both_ways(gateway: Gateway) -> None:
    body = b"y" * 3_000_000
    reply = gateway.post("/function/web", body=body)
    answer = gateway.post("/function/web/large/3000000")

    assert (reply.status, reply.body) == (200, b"answer of " + body)
    assert (answer.status, answer.body) == (200, b"x" * 3_000_000)
    assert len(answer.get_all("date")) == 1


@pytest.mark.parametrize("size", [0, 100, 300_000, 3_000_000])
def test_an_answer_has_the_length_that_the_function_says(gateway: Gateway, size: int) -> None:
    whole, head = (gateway.ask(method, f"/function/web/large/{size}") for method in ("GET", "HEAD"))

    assert (whole.status, len(whole.body)) == (200, size)
    assert (head.status, head.body) == (200, b"")
    for reply in (whole, head):
        assert reply.get("content-length") == str(size)
        assert reply.get_all("transfer-encoding") == []


def test_of_a_command_head_asks_too(gateway: Gateway) -> None:
    reply = gateway.ask("HEAD", "/function/fails")

    assert (reply.status, reply.get("content-length"), reply.body) == (500, "5", b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_parts_of_what_a_function_has_can_be_asked_for(gateway: Gateway, method: str) -> None:
    def get(*headers: tuple[str, str]) -> Reply:
        return gateway.ask(method, "/function/web/range/v1", list(headers))

    whole, part, large = get(), get(("Range", "bytes=10-19")), get(("Range", "bytes=0-299999"))
    beyond, same = get(("Range", "bytes=900000-900001")), get(("If-None-Match", '"v1"'))

    assert [reply.status for reply in (whole, part, large, beyond, same)] == [200, 206, 206, 416, 304]
    assert [reply.get("content-length") for reply in (whole, part, large, beyond)] == ["512000", "10", "300000", "0"]
    assert [reply.get("content-range") for reply in (part, beyond)] == ["bytes 10-19/512000", "bytes */512000"]
    assert (part.body, len(large.body)) == ((bytes(range(10, 20)), 300_000) if method == "GET" else (b"", 0))
    assert {reply.get("etag") for reply in (whole, part, large, beyond, same)} == {'"v1"'}
    assert (same.body, same.get_all("content-length"), same.get_all("transfer-encoding")) == (b"", [], [])


@pytest.mark.parametrize("kind", ["function", "async-function"])
def test_a_body_over_the_limit_is_refused_before_it_has_come(gateway: Gateway, kind: str) -> None:
    with socket.create_connection(gateway.server.http.rsplit(":", 1), timeout=PATIENCE) as connection:  # type: ignore[arg-type]
        head = f"POST /{kind}/web HTTP/1.1\r\nHost: {gateway.server.http}\r\nContent-Length: {2**26 + 1}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/function/web/" + "a" * 3000, [], 414),
        ("/function/web?" + "a" * 3000, [], 414),
        ("/function/web", [("X-Long", "a" * 20_000)], 431),
        ("/function/web", [("X-Call-Id", "a b")], 400),
        ("/function/web", [("X-Homing-Delay", "1s")], 400),
    ],
)
def test_what_is_too_long_or_wrong_is_refused(gateway: Gateway, target: str, headers: Headers, status: int) -> None:
    assert gateway.post(target, headers).status == status


def test_a_caller_who_goes_away_stops_the_call(gateway: Gateway) -> None:
    gateway.go_on.clear()
    host, port = gateway.server.http.rsplit(":", 1)
    while not gateway.seen.empty():
        gateway.seen.get()
    with gateway.client.watch_results(function="web", call_id="leaves") as results:
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            head = f"POST /function/web/hold HTTP/1.1\r\nHost: {host}\r\nX-Call-Id: leaves\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())
            gateway.next()
        ended = next(iter(results)).invocation
    gateway.go_on.set()

    assert ended.state is InvocationState.STOPPED


@pytest.mark.parametrize("status", [200, 404])
def test_a_stream_comes_as_the_function_sends_it(gateway: Gateway, status: int) -> None:
    gateway.go_on.clear()
    connection = http.client.HTTPConnection(gateway.server.http, timeout=PATIENCE)
    connection.request("POST", f"/function/web/drip/{status}", b"", {"X-Call-Id": "stream"})
    response = connection.getresponse()
    first = response.read1()
    gateway.go_on.set()
    rest = response.read()
    connection.close()

    assert (response.status, first, rest) == (status, b"one", b"two")
    assert [response.headers[name] for name in ("Content-Type", "X-Call-Id")] == ["text/event-stream", "stream"]


def test_a_stream_that_breaks_off_breaks_off(gateway: Gateway) -> None:
    gateway.go_on.clear()
    connection = http.client.HTTPConnection(gateway.server.http, timeout=PATIENCE)
    connection.request("POST", "/function/web/drip/breaks", b"")
    response = connection.getresponse()
    assert response.read1() == b"one"
    gateway.go_on.set()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()


# --- 1.4 Asynchronous calls


def test_what_is_accepted_has_an_id_a_time_and_a_place_and_no_body(gateway: Gateway) -> None:
    reply = gateway.post("/async-function/web/a?b=c", [("X-Two", "1"), ("X-Two", "2")])

    seen = gateway.next()
    call_id = reply.get("x-call-id")
    assert (reply.status, reply.body, reply.get("location")) == (202, b"", f"/v1/invocations/{call_id}")
    assert seen.get("x-call-id") == [call_id]
    assert seen.get("x-start-time") == [reply.get("x-start-time")]
    assert (seen.method, seen.path, seen.body, seen.get("x-two")) == ("POST", "/a?b=c", b"hi", ["1", "2"])
    assert gateway.client.handle(call_id).result(PATIENCE).data == b"answer of hi"


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://example.org", "http://169.254.169.254/", "http://gateway/function/no"]
)
def test_a_callback_that_may_not_be_is_refused_by_its_name(gateway: Gateway, url: str) -> None:
    reply = gateway.post("/async-function/web", [("X-Callback-Url", url)])

    assert (reply.status, reply.text.partition(":")[0]) == (400, "X-Callback-Url")


def test_a_callback_is_shown_the_answer_and_its_call_id(gateway: Gateway) -> None:
    with receiver(statuses=[200]) as (url, received):
        gateway.post("/async-function/web", [("X-Callback-Url", f"{url}/hook?x=1"), ("X-Call-Id", "called-back")])
        path, headers, body = received.get(timeout=PATIENCE)

    assert (path, body) == ("/hook?x=1", b"answer of hi")
    shown = [headers[name] for name in ("x-call-id", "x-function-name", "x-function-status")]
    assert shown == ["called-back", "web", "200"]
    assert float(headers["x-duration-seconds"]) >= 0
    assert int(headers["x-start-time"]) > 0


@pytest.mark.parametrize("own", ["http://gateway:8080", "itself", "as it is asked", "as its proxy is asked"])
def test_a_callback_to_a_function_is_an_invocation_of_its_own(gateway: Gateway, own: str) -> None:
    localhost = f"localhost:{gateway.server.http.rpartition(':')[2]}"
    origin, headers = {
        "itself": (f"http://{gateway.server.http}", []),
        "as it is asked": (f"http://{localhost}", [("Host", localhost)]),
        "as its proxy is asked": ("https://proxy.example", [("X-Forwarded-Host", "proxy.example")]),
    }.get(own, (own, []))
    with gateway.client.watch_results(function="web") as results:
        callback = ("X-Callback-Url", f"{origin}/function/web/next?a=b")
        reply = gateway.post("/async-function/echo", [callback, *headers])
        event = next(iter(results)).invocation

    seen = gateway.next()
    first = reply.get("x-call-id")
    assert (seen.path, seen.body, seen.get("x-call-id")) == ("/next?a=b", b"hi", [first])
    assert (seen.get("x-function-name"), seen.get("x-function-status")) == (["echo"], ["200"])
    assert (event.caused_by, event.depth, event.state) == (first, 1, InvocationState.SUCCEEDED)
    assert [delivery.caused for delivery in gateway.client.get(first).deliveries] == [event.id]


def test_an_idempotency_key_makes_it_one_invocation(gateway: Gateway) -> None:
    key = ("Idempotency-Key", "once")
    first, again = (
        gateway.post("/async-function/echo", [key, *((name, way) for name in OF_THE_WAY)])
        for way in ("10.0.0.1", "10.0.0.2")
    )
    other = gateway.post("/async-function/echo", [key], body=b"other")

    assert (first.status, again.status, other.status) == (202, 202, 409)
    assert first.get("location") == again.get("location")


def test_it_is_stopped_by_its_call_id(gateway: Gateway) -> None:
    later = [("X-Call-Id", "batch"), ("X-Homing-Delay", "1h")]
    places = [gateway.post("/async-function/echo", later).get("location") for _ in range(2)]
    unnamed = gateway.post("/async-function/echo", [("X-Homing-Delay", "60")]).get("x-call-id")

    assert gateway.ask("DELETE", "/async-function/batch").status == 202
    assert gateway.ask("DELETE", "/async-function/batch").status == 202
    assert gateway.ask("DELETE", f"/async-function/{unnamed}").status == 202
    ids = [*(place.rsplit("/", 1)[1] for place in places), unnamed]
    assert {gateway.client.get(key).state for key in ids} == {InvocationState.STOPPED}
    assert [gateway.ask("DELETE", f"/async-function/{name}").status for name in ("none", "a%20b/c", "")] == [404] * 3


def test_who_would_rather_wait_gets_the_answer_or_that_it_is_accepted(gateway: Gateway) -> None:
    soon = gateway.post("/async-function/web", [("Prefer", "respond-async, wait=30")])
    late = gateway.post("/async-function/web", [("Prefer", "wait=0"), ("X-Homing-Delay", "1h")])
    waited = gateway.post("/async-function/web", [("Prefer", "wait=1"), ("X-Homing-Delay", "1h")])

    assert (soon.status, soon.body, soon.get("preference-applied")) == (200, b"answer of hi", "wait=30")
    assert [reply.status for reply in (late, waited)] == [202, 202]
    assert soon.get("location") == f"/v1/invocations/{soon.get('x-call-id')}"
    for reply in (late, waited):
        gateway.ask("DELETE", f"/async-function/{reply.get('x-call-id')}")


def test_options_are_those_of_the_record(gateway: Gateway) -> None:
    reply = gateway.post(
        "/async-function/echo",
        [
            ("X-Homing-Delay", "1h"),
            ("X-Homing-Max-Age", "1m30s"),
            ("X-Homing-Attempt-Timeout", "2.5"),
            ("X-Homing-Retry-Attempts", "7"),
            ("X-Homing-Label-Job", "42"),
        ],
    )

    record = gateway.client.get(reply.get("x-call-id"))
    assert record.state is InvocationState.SCHEDULED
    assert record.max_age is not None
    assert record.attempt_timeout is not None
    assert (record.max_age.total_seconds(), record.attempt_timeout.total_seconds()) == (90, 2.5)
    assert record.retry_policy is not None
    assert (record.retry_policy.max_attempts, record.labels) == (7, {"job": "42"})
    gateway.client.handle(record.id).stop()


def test_clients_of_function_compute_find_their_headers(gateway: Gateway) -> None:
    task = [("X-Fc-Invocation-Type", "Async"), ("X-Fc-Async-Task-Id", "video-7"), ("X-Fc-Async-Delay", "3600")]
    first, again = (gateway.post("/function/echo", task) for _ in range(2))
    older = gateway.post(
        "/function/echo", [("X-Fc-Invocation-Type", "Async"), ("X-Fc-Stateful-Async-Invocation-Id", "video-8")]
    )

    assert (first.status, first.get("x-fc-async-task-id"), first.get("x-call-id")) == (202, "video-7", "video-7")
    assert (again.status, older.status) == (409, 202)
    assert gateway.ask("DELETE", "/async-function/video-7").status == 202


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Homing-Delay", "soon"), ("X-Homing-Delay", "-1s"), ("X-Homing-Delay", "1000h"), ("X-Homing-Max-Age", "0s"),
        ("X-Homing-Attempt-Timeout", "25h"), ("X-Homing-Retry-Attempts", "0"), ("X-Homing-Retry-Attempts", "x"),
        ("X-Fc-Async-Task-Id", "7"), ("X-Fc-Async-Delay", "3601"), ("X-Fc-Invocation-Type", "Never"),
        ("Idempotency-Key", "\u00e9"), ("X-Call-Id", "a b"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_the_name_of_its_header(gateway: Gateway, header: str, value: str) -> None:
    reply = gateway.post("/async-function/echo", [(header, value)])

    assert (reply.status, reply.text.partition(":")[0]) == (400, header)


# --- Pages of other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Origin", "http://evil.example.org")], 403),
        ([("Origin", "null")], 403),
        ([("Sec-Fetch-Site", "cross-site")], 403),
        ([("Origin", "http://localhost:3000"), ("Sec-Fetch-Site", "cross-site")], 200),
        ([("Sec-Fetch-Site", "none")], 200),
        ([("Sec-Fetch-Site", "same-origin")], 200),
    ],
)
def test_a_page_of_another_site_invokes_nothing(gateway: Gateway, headers: Headers, status: int) -> None:
    reply = gateway.post("/function/web", headers)

    assert reply.status == status
    assert gateway.seen.empty() is (status == 403)
    if status == 403:
        assert gateway.post("/async-function/web", headers).status == 403


# --- 1.5 Metrics


def test_what_is_done_is_counted_by_function_and_code(gateway: Gateway) -> None:
    def counted() -> dict[str, float]:
        lines = gateway.ask("GET", "/metrics").text.splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
            if "gateway_" in name
        }

    before = counted()
    gateway.post("/function/web")
    gateway.post("/function/web/status/418")
    gateway.post("/function/not-there")
    gateway.post("/async-function/web")
    after = counted()
    raised = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}

    of = 'function_name="web.openfaas-fn"'
    assert raised[f'gateway_function_invocation_total{{code="200",{of}}}'] == 1
    assert raised[f'gateway_function_invocation_total{{code="418",{of}}}'] == 1
    assert raised[f'gateway_function_invocation_total{{code="202",{of}}}'] == 1
    assert raised[f"gateway_function_invocation_started_total{{{of}}}"] == 3
    assert raised[f"gateway_functions_seconds_count{{{of}}}"] == 3
    assert not any("not-there" in name for name in after)
