"""Functions that already run somewhere, called by their URLs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from homing import FunctionError, InvalidRequestError, InvocationState, RetryPolicy
from support.processes import Cluster


@contextmanager
def running_function() -> Iterator[str]:
    """Serve a function that answers with the path it was called at, and fails below /broken."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"{self.path} {self.headers['X-Call-Id']}".encode()
            self.send_response(500 if self.path.startswith("/broken") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_url_is_called_below_its_path(cluster: Cluster) -> None:
    cluster.start_server()
    cluster.start_worker()
    client = cluster.client()
    with running_function() as url:
        client.functions.deploy(name="root", url=url)
        client.functions.deploy(name="below", url=f"{url}/base/")

        assert client.invoke("root", "x").text.startswith("/ ")
        assert client.invoke("root", "x", path="/a/b", query="c=d").text.startswith("/a/b?c=d ")
        assert client.invoke("below", "x").text.startswith("/base ")
        assert client.invoke("below", "x", query="c=d").text.startswith("/base?c=d ")
        call = client.invoke_async("below", "x", path="/a")
        assert call.result(timeout=60).text == f"/base/a {call.id}"


def test_a_url_that_fails_or_is_gone_fails_its_invocations_only(cluster: Cluster) -> None:
    cluster.start_server()
    cluster.start_worker()
    client = cluster.client()
    once = RetryPolicy(max_attempts=1)
    with running_function() as url:
        client.functions.deploy(name="good", url=url)
        client.functions.deploy(name="broken", url=f"{url}/broken", retry_policy=once)
        failed = client.invoke_async("broken", "x").wait(timeout=60)
        assert failed.state is InvocationState.FAILED
        assert failed.failure is not None
        assert failed.failure.reason == "HTTP_STATUS"
        assert client.invoke("good", "x").status_code == 200
    client.functions.deploy(name="gone", url=url, retry_policy=once)
    with pytest.raises(FunctionError, match="no connection could be made"):
        client.invoke("gone", "x")


def test_a_url_on_a_private_network_is_refused_when_it_is_deployed(shared_cluster: Cluster) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"function\.url.*10\.0\.0\.7: a private network.*HOMING_FUNCTION_NETWORKS"
    ) as refused:
        shared_cluster.client().functions.deploy(name="inside", url="http://10.0.0.7:8080/run")
    assert [violation.field for violation in refused.value.violations] == ["function.url"]
