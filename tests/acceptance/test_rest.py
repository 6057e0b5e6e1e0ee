"""REST as a program or a browser uses it: on `homing dev`, and with two workers on RabbitMQ."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Unpack

import pytest
from openapi_spec_validator import validate

from homing import Client, FilterOptions, InvocationState
from support.confidential import confidential
from support.http_client import Headers, Reply, ask
from support.processes import Cluster, Dev, Server

PATIENCE = 60.0
JSON: Headers = [("Content-Type", "application/json")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """Where REST is served."""

    server: Server
    client: Client

    def ask(self, method: str, target: str, body: Any = None, *, headers: Headers | None = None) -> Reply:
        """Ask with JSON."""
        sent = None if body is None else json.dumps(body).encode()
        return ask(self.server.http, method, f"/v1/{target}", [*JSON, *(headers or [])], sent)

    def get(self, target: str) -> Any:
        """Return what is read."""
        return self.done(self.ask("GET", target))

    def post(self, target: str, body: Any = None) -> Any:
        """Return what came of an action."""
        return self.done(self.ask("POST", target, {} if body is None else body))

    @staticmethod
    def done(reply: Reply) -> Any:
        """Return what an answer has, which is no error."""
        assert reply.status == 200, reply.text
        return json.loads(reply.body)

    def invoke_async(self, function: str, data: bytes = b"", **spec: Any) -> str:
        """Invoke a function and return the id."""
        payload = {"data": base64.b64encode(data).decode()}
        invocation_id: str = self.post(f"functions/{function}:invokeAsync", {"payload": payload, **spec})["invocation"][
            "id"
        ]
        return invocation_id

    def ended(self, function: str = "upper", **spec: Any) -> str:
        """Invoke a function and return the id once it has ended."""
        invocation_id = self.invoke_async(function, b"x", **spec)
        assert self.get(f"invocations/{invocation_id}:wait?timeout=60s")["invocation"]["endTime"]
        return invocation_id

    @contextlib.contextmanager
    def events(self, target: str, last: str = "") -> Iterator[Iterator[dict[str, str]]]:
        """Yield the events of a stream, without what only keeps it alive."""
        connection = http.client.HTTPConnection(self.server.http, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", f"/v1/{target}", headers={"Last-Event-ID": last} if last else {})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.getheader("Content-Type") == "text/event-stream"
            yield events_of(response)


def events_of(response: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in response:
        name, colon, value = line.decode().rstrip("\n").partition(": ")
        if colon and name:
            event[name] = value
        elif not name:
            if "data" in event:
                yield event
            event = {}


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        server: Server
        if request.param == "rabbitmq":
            cluster: Cluster = request.getfixturevalue("shared_cluster")
            cluster.start_worker()
            server = cluster.server
        else:
            server = Dev(tmp_path_factory.mktemp("dev"))
            server.start()
            stack.callback(server.terminate)
        client = stack.enter_context(Client(server.target, timeout=PATIENCE))
        made = Door(server=server, client=client)
        made.done(made.ask("PUT", "functions/upper", {"command": {"args": ["tr", "a-z", "A-Z"]}}))
        says = {"args": ["sh", "-c", "for line in one two three; do echo $line >&2; done"]}
        made.done(made.ask("PUT", "functions/says", {"command": says}))
        made.done(
            made.ask("PUT", "functions/fails", {"command": {"args": ["false"]}, "retryPolicy": {"maxAttempts": 1}})
        )
        yield made


def test_invoke_answers_with_the_result_and_its_id(door: Door) -> None:
    reply = door.ask("POST", "functions/upper:invoke", {"payload": {"data": "aGVsbG8="}})
    invocation = door.done(reply)["invocation"]
    assert base64.b64decode(invocation["result"]["payload"]["data"]) == b"HELLO"
    assert invocation["state"] == "INVOCATION_STATE_SUCCEEDED"
    assert reply.get("x-homing-invocation-id") == invocation["id"]


def test_a_call_that_waits_for_too_long_says_its_id(door: Door) -> None:
    door.done(door.ask("PUT", "functions/slow", {"command": {"args": ["sleep", "60"]}}))
    reply = door.ask("POST", "functions/slow:invoke", headers=[("X-Homing-Timeout", "0.5")])
    assert reply.status == 504
    error = json.loads(reply.body)["error"]
    assert error["status"] == "DEADLINE_EXCEEDED"
    assert error["details"][0]["metadata"]["invocation"]


def test_a_client_that_goes_away_stops_what_it_waited_for(door: Door) -> None:
    door.done(door.ask("PUT", "functions/left", {"command": {"args": ["sleep", "60"]}}))
    with door.events("results:watch?filter.functions=left&includeTransitions=true") as events:
        assert next(events)["event"] == "bookmark"
        connection = http.client.HTTPConnection(door.server.http, timeout=PATIENCE)
        connection.request("POST", "/v1/functions/left:invoke", b"{}", dict(JSON))
        changes = (json.loads(event["data"])["invocation"] for event in events if event["event"] == "invocation")
        running = next(change for change in changes if change["state"] == "INVOCATION_STATE_RUNNING")
        connection.close()
        ended = next(change for change in changes if "endTime" in change)
    assert (ended["id"], ended["state"]) == (running["id"], "INVOCATION_STATE_STOPPED")


def test_an_answer_comes_as_lines_while_it_is_made(door: Door) -> None:
    reply = door.ask("POST", "functions/upper:invokeStream", {"payload": {"data": "aGVsbG8="}})
    assert reply.status == 200
    head, *parts, end = [json.loads(line) for line in reply.text.splitlines()]
    assert head["head"]["statusCode"] == 200
    assert b"".join(base64.b64decode(part["data"]) for part in parts) == b"HELLO"
    assert end["invocation"]["state"] == "INVOCATION_STATE_SUCCEEDED"
    assert reply.get("x-homing-invocation-id") == end["invocation"]["id"]


def test_what_is_accepted_is_found_listed_counted_and_run_again(door: Door) -> None:
    ids = {door.ended(labels={"team": "a.b/c"}) for _ in range(3)}
    assert door.get(f"invocations/{min(ids)}?includePayload=true")["invocation"]["spec"]["payload"]["data"] == "eA=="
    team = urllib.parse.quote("filter.labels[team]", safe="") + "=a.b%2Fc"
    found, token = set(), ""
    for _ in range(3):
        page = door.get(f"invocations?{team}&pageSize=1&order=INVOCATION_ORDER_OLDEST_FIRST&pageToken={token}")
        found |= {each["id"] for each in page["invocations"]}
        token = page.get("nextPageToken", "")
    assert found == ids
    states = "filter.states=INVOCATION_STATE_SUCCEEDED&filter.states=INVOCATION_STATE_FAILED"
    assert door.get(f"invocations:count?{team}&{states}")["counts"] == [
        {"state": "INVOCATION_STATE_SUCCEEDED", "count": "3"}
    ]
    again = door.post(f"invocations/{min(ids)}:rerun")["invocation"]
    assert again["rerunOf"] == min(ids)


def test_the_same_request_id_is_the_same_invocation(door: Door) -> None:
    target = "functions/upper:invokeAsync?requestId=order-7"
    first, second = door.post(target), door.post(target)
    assert first["invocation"]["id"] == second["invocation"]["id"]
    assert second["duplicate"] is True
    other = door.ask("POST", target, {"labels": {"a": "b"}})
    assert other.status == 409
    assert json.loads(other.body)["error"]["details"][0]["reason"] == "REQUEST_ID_REUSED"


def test_a_batch_tells_of_each(door: Door) -> None:
    requests = [{"spec": {"function": "upper"}}, {"spec": {"function": "nothing"}}]
    accepted, refused = door.post("invocations:batch", {"requests": requests})["results"]
    assert accepted["accepted"]["invocation"]["function"] == "upper"
    assert refused["error"]["details"][0]["reason"] == "FUNCTION_NOT_FOUND"


def test_one_and_many_are_stopped(door: Door) -> None:
    one, *many = [door.invoke_async("upper", delay="3600s", labels={"stop": "me"}) for _ in range(3)]
    assert (
        door.post(f"invocations/{one}:stop", {"reason": "enough"})["invocation"]["state"] == "INVOCATION_STATE_STOPPED"
    )
    ended = door.ask("POST", f"invocations/{one}:stop", {})
    assert (ended.status, json.loads(ended.body)["error"]["status"]) == (400, "FAILED_PRECONDITION")
    reply = door.ask("POST", "invocations:bulkStop", {"filter": {"labels": {"stop": "me"}}, "reason": "enough"})
    assert reply.get("content-type") == "application/x-ndjson"
    last = json.loads(reply.text.splitlines()[-1])
    assert (last["matched"], last["stopped"], last["done"]) == (str(len(many)), str(len(many)), True)


def test_many_are_chosen_by_when_they_started_and_ended(door: Door) -> None:
    labels = {"chosen": "by-time"}
    first, second = (door.client.get(door.ended(labels=labels)) for _ in range(2))
    scheduled = door.client.invoke_async("upper", labels=labels, delay=3600)
    assert first.end_time is not None
    assert second.start_time is not None
    assert second.end_time is not None

    def reruns(**chosen: Unpack[FilterOptions]) -> int:
        chosen["labels"] = labels
        return door.client.bulk_rerun(dry_run=True, **chosen).matched

    assert (reruns(), reruns(ended_since=second.end_time), reruns(ended_until=second.end_time)) == (2, 1, 1)
    assert (reruns(started_since=second.start_time), reruns(started_until=second.start_time)) == (1, 1)
    since = {"startTime": second.end_time.isoformat().replace("+00:00", "Z")}
    body = {"filter": {"labels": labels, "endTime": since}, "dryRun": True}
    lines = door.ask("POST", "invocations:bulkRerun", body).text.splitlines()
    assert json.loads(lines[-1])["matched"] == "1"
    # What has not started is not among those that started at any time.
    started = door.client.bulk_stop(labels=labels, started_since=first.end_time - timedelta(hours=1))
    assert (started.matched, door.client.bulk_stop(labels=labels).stopped) == (0, 1)
    assert scheduled.describe().state is InvocationState.STOPPED


def test_dead_letters_are_listed_redriven_and_purged(door: Door) -> None:
    door.ended("fails")
    assert door.get("deadLetters?filter.functions=fails")["deadLetters"]
    body = {"filter": {"functions": ["fails"]}, "dryRun": True}
    for verb in ("redrive", "purge"):
        lines = door.ask("POST", f"deadLetters:{verb}", body).text.splitlines()
        assert json.loads(lines[-1])["matched"] == "1"


def test_a_watch_goes_on_where_it_broke_off(door: Door) -> None:
    watch = "results:watch?filter.functions=upper"
    with door.events(watch) as events:
        first = next(events)
        assert first["event"] == "bookmark"
        seen = door.ended()
        event = next(event for event in events if event["event"] == "invocation")
        assert json.loads(event["data"])["invocation"]["id"] == seen
    missed = [door.ended() for _ in range(3)]
    with door.events(watch, last=event["id"]) as events:
        came = [next(event for event in events if event["event"] == "invocation") for _ in missed]
    assert [json.loads(event["data"])["invocation"]["id"] for event in came] == missed
    assert door.ask("GET", watch, headers=[("Last-Event-ID", "no-token")]).status == 400


def test_a_log_goes_on_after_the_last_line_and_ends(door: Door) -> None:
    invocation_id = door.invoke_async("says")
    logs = f"invocations/{invocation_id}/logs?follow=true"
    with door.events(logs) as events:
        *lines, end = list(events)
    assert [json.loads(line["data"])["text"] for line in lines] == ["one", "two", "three"]
    assert end["event"] == "end"
    with door.events(logs, last=lines[0]["id"]) as events:
        again = [json.loads(event["data"]).get("text") for event in events]
    assert again == ["two", "three", None]
    assert door.ask("GET", logs, headers=[("Last-Event-ID", end["id"])]).status == 204
    assert door.ask("GET", "invocations/nothing/logs").status == 404


def test_functions_are_deployed_changed_paused_scaled_and_deleted(door: Door) -> None:
    created = door.done(door.ask("PUT", "functions/new", {"command": {"args": ["cat"]}, "labels": {"a": "b"}}))
    assert created["created"] is True
    changed = door.done(door.ask("PUT", "functions/new?updateMask=labels&expectedRevision=1", {"labels": {"a": "c"}}))[
        "function"
    ]
    assert (changed["labels"], changed["command"]["args"], changed["revision"]) == ({"a": "c"}, ["cat"], "2")
    assert door.ask("PUT", "functions/new?expectedRevision=1", {"command": {"args": ["cat"]}}).status == 409
    assert door.post("functions/new:pause")["function"]["paused"] is True
    assert "paused" not in door.post("functions/new:resume")["function"]
    assert door.post("functions/new:scale", {"maxInstances": 3})["function"]["maxInstances"] == 3
    assert "new" in [each["name"] for each in door.get("functions?pageSize=1000")["functions"]]
    assert door.ask("DELETE", "functions/new").status == 200
    assert door.ask("GET", "functions/new").status == 404


def test_secrets_and_keys_are_made_changed_and_removed(door: Door) -> None:
    value = base64.b64encode(confidential("a-password").encode()).decode()
    assert door.post("secrets", {"name": "password", "value": value})["secret"]["version"] == "1"
    assert door.ask("POST", "secrets", {"name": "password", "value": value}).status == 409
    assert door.done(door.ask("PUT", "secrets/password", {"value": value}))["secret"]["version"] == "2"
    assert [each["name"] for each in door.get("secrets")["secrets"]] == ["password"]
    assert door.ask("DELETE", "secrets/password").status == 200
    made = door.post("keys", {"name": "ci", "scopes": ["SCOPE_READ"]})
    assert made["secret"].startswith("hk_")
    assert [each["name"] for each in door.get("keys")["keys"]] == ["ci"]
    assert door.done(door.ask("DELETE", "keys/ci"))["key"]["name"] == "ci"
    signing = door.post("signingKeys:rotate", {"function": "upper"})["signingKey"]["id"]
    assert signing in [each["id"] for each in door.get("signingKeys?function=upper")["signingKeys"]]
    assert door.ask("DELETE", f"signingKeys/{signing}").status == 200


def test_a_large_body_goes_as_bytes(door: Door) -> None:
    body = b"abc" * 1_000_000
    stored = door.done(ask(door.server.http, "POST", "/v1/payloads", [], body))["blob"]
    assert stored["size"] == str(len(body))
    result = door.post("functions/upper:invoke", {"payload": {"blob": stored}})["invocation"]["result"]["payload"][
        "blob"
    ]
    reply = ask(door.server.http, "GET", f"/v1/payloads/{result['id']}")
    assert (reply.status, reply.get("content-type")) == (200, "application/octet-stream")
    assert reply.body == body.upper()
    assert door.ask("GET", "payloads/nothing").status == 404


def test_it_describes_itself(door: Door) -> None:
    document = door.get("openapi.json")
    validate(document)
    assert document["openapi"].startswith("3.1")
    page = door.ask("GET", "docs")
    assert page.status == 200
    assert page.get("content-security-policy").startswith("default-src 'none'")
    for path in document["paths"]:
        assert path in page.text
    assert "<script" not in page.text


def fuzz(door: Door, tmp_path: Path, *arguments: str, but: Sequence[str] = ()) -> None:
    """Let schemathesis look for a fault of the server, or an answer that is not in the document.

    :param but: Methods that are left out.
    """
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_headers_conformance,response_schema_conformance"
    )
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--checks", checks, "--seed", "1", "--workers", "2", "--no-color", "--warnings", "off", *arguments]
    for method in (*but, "WatchResults"):  # a watch has no end
        options += ["--exclude-operation-id", method]
    told = subprocess.run(
        [program, "run", f"http://{door.server.http}/v1/openapi.json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-5_000:]
    assert " passed" in told.stdout


@pytest.mark.parametrize("door", ["embedded"], indirect=True)
def test_no_request_brings_a_fault_or_an_answer_that_is_not_documented(door: Door, tmp_path: Path) -> None:
    fuzz(door, tmp_path, "--phases", "fuzzing", "--max-examples", "5")


@pytest.mark.parametrize("door", ["embedded"], indirect=True)
def test_no_corner_of_what_is_documented_does_either(door: Door, tmp_path: Path) -> None:
    # It goes through all values of all fields: for these methods that takes a minute, and tells nothing that those of
    # the same kind do not tell. The other test has them too.
    but = ("DeployFunction", "InvokeStream", "InvokeAsync", "BatchInvokeAsync", "WaitInvocation")
    fuzz(door, tmp_path, "--phases", "coverage", but=but)
    assert ask(door.server.http, "GET", "/healthz").status == 200
