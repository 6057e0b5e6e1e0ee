"""Who may do what over HTTP: every route, without a key, with wrong ones, and with one of each scope."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from homing import Client, Scope
from homing_server.front.http.data_port import DataPort
from homing_server.front.http.operations import Operations
from homing_server.front.http.rest.routes import ROUTES
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.engine import Database
from support.allowed import ALLOWED, INVOKE, READ, SCOPES
from support.guarded import ROOT_KEY, fetch
from support.http_client import ask
from support.processes import Cluster


def test_every_http_route_wants_a_key_but_health_and_signed_urls(
    guarded: Cluster, root: Client, data_port: DataPort
) -> None:
    keys = {scope: root.keys.create(f"http-{scope.value.lower()}", scopes=[scope]).secret for scope in SCOPES}
    limited = root.keys.create("http-limited", scopes=["read"], functions=["upper"]).secret
    areas = [*Operations(Metrics()).areas, *data_port.areas]
    routes = {
        (method, route.path)
        for area in areas
        if isinstance(area.app, Starlette)
        for route in area.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    expected = {
        ("GET", "/healthz"): 200,
        ("HEAD", "/healthz"): 200,
        ("GET", "/metrics"): 401,
        ("HEAD", "/metrics"): 401,
        # Not for want of a key: they are not signed.
        ("GET", "/v1/blobs/{id}"): 403,
        ("HEAD", "/v1/blobs/{id}"): 403,
        ("PUT", "/v1/results/{id}"): 403,
        ("POST", "/v1/streams/{id}"): 403,
    }
    assert routes == expected.keys()
    base = f"http://{guarded.server.http}"
    for (method, path), status in expected.items():
        for key in (None, "wrong"):
            found, headers = fetch(method, base + path.replace("{id}", "x"), key)
            assert found == status, (method, path)
            assert (headers["WWW-Authenticate"] == "Bearer") is (status == 401)
    for method, path in (("GET", "/nothing"), ("GET", "/"), ("DELETE", "/metrics")):
        assert fetch(method, base + path)[0] == 401
        assert fetch(method, base + path, keys[INVOKE])[0] in {404, 405}
    for scope in SCOPES:
        assert fetch("GET", f"{base}/metrics", keys[scope])[0] == (200 if scope is READ else 403)
        root.keys.revoke(f"http-{scope.value.lower()}")
    assert fetch("GET", f"{base}/metrics", limited)[0] == 403
    assert fetch("GET", f"{base}/metrics", ROOT_KEY)[0] == 200


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_every_rest_route_wants_a_key_and_the_right_scope(
    guarded: Cluster, rest_keys: dict[Scope, str], name: str
) -> None:
    route = ROUTES[name]
    allowed = ALLOWED[name.removeprefix("/homing.v1.")]
    target = re.sub(r"\{[a-z_.]+\}", "nothing", route.path)

    def refusal(key: str | None) -> tuple[int, str]:
        headers = [("Last-Event-ID", "none")]  # which no stream goes on from
        if key is not None:
            headers.append(("Authorization", f"Bearer {key}"))
        reply = ask(guarded.server.http, route.verb, target, headers, b"" if route.verb == "POST" else None)
        error = {} if reply.status == 200 else json.loads(reply.body)["error"]
        return reply.status, error["details"][0]["reason"] if error else ""

    assert refusal(None) == (401, "KEY_MISSING"), "nothing that is public is named"
    assert refusal("wrong") == (401, "KEY_INVALID")
    for scope in SCOPES:
        status, reason = refusal(rest_keys[scope])
        assert (reason == "SCOPE_MISSING") is (scope not in allowed), (scope, reason)
        assert (status == 403) is (scope not in allowed)


@pytest.fixture(scope="module")
def rest_keys(root: Client) -> dict[Scope, str]:
    return {scope: root.keys.create(f"rest-{scope.value.lower()}", scopes=[scope]).secret for scope in SCOPES}


@pytest.mark.parametrize("path", ["openapi.json", "docs", "nothing"])
def test_rest_is_described_to_who_shows_a_key(guarded: Cluster, rest_keys: dict[Scope, str], path: str) -> None:
    assert fetch("GET", f"http://{guarded.server.http}/v1/{path}")[0] == 401
    found, _ = fetch("GET", f"http://{guarded.server.http}/v1/{path}", rest_keys[READ])
    assert found == (404 if path == "nothing" else 200)


@pytest.fixture
def data_port(tmp_path: Path) -> DataPort:
    """Return one that serves nothing, for its routes."""

    async def receive(_invocation: str, _chunks: AsyncIterable[bytes]) -> None:
        raise AssertionError("nothing comes here")

    blobs = Blobs(Database(f"sqlite:///{tmp_path / 'none'}"), tmp_path)
    return DataPort(blobs, SignedUrls(), receive=receive)
