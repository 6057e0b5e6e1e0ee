"""Clients: where they connect, and where they must not be used."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import homing
from homing.v1 import function_service_pb2, invocation_service_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

ANSWER = invocation_service_pb2.InvokeResponse(invocation=records.invocation())


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOMING_TARGET", "HOMING_API_KEY", "HOMING_TLS_CA"):
        monkeypatch.delenv(name, raising=False)


def test_the_target_and_key_come_from_the_environment(
    driver: Driver, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMING_TARGET", scripted_server.target)
    monkeypatch.setenv("HOMING_API_KEY", "k1")
    scripted_server.script("Invoke", ANSWER)

    driver.do(driver.client().invoke, "figlet")
    driver.do(driver.client(api_key="k2").invoke, "figlet")

    assert [metadata["authorization"] for metadata in scripted_server.metadata["Invoke"]] == ["Bearer k1", "Bearer k2"]


def test_without_settings_it_is_the_local_server(driver: Driver) -> None:
    assert repr(driver.client()).endswith("Client localhost:50051>")


def test_it_says_who_it_is(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)

    driver.do(driver.client(scripted_server.target).invoke, "figlet")

    [metadata] = scripted_server.metadata["Invoke"]
    assert str(metadata["user-agent"]).startswith(f"homing-python/{homing.__version__} ")
    assert "authorization" not in metadata


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": 5}, TypeError, "target must be str, not int"),
        ({"target": ""}, homing.InvalidRequestError, "target: must be HOST:PORT, or https://HOST:PORT for TLS"),
        ({"api_key": "k\n"}, homing.InvalidRequestError, "api_key: must be printable ASCII"),
        ({"tls_ca": "/nowhere/ca.pem"}, homing.InvalidRequestError, "tls_ca: cannot be read: .*No such file"),
        ({"timeout": 0}, homing.InvalidRequestError, "timeout: must be more than 0 s, is 0 s"),
        ({"timeout": 3_155_760_001}, homing.InvalidRequestError, "timeout: must be at most 3155760000 s"),
        ({"timeout": "1"}, TypeError, "timeout must be seconds or a timedelta, not str"),
    ],
    ids=str,
)
def test_bad_settings_are_named(driver: Driver, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        driver.client(**options)


def test_the_timeout_of_the_client_holds_for_all_its_calls(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("GetFunction", function_service_pb2.GetFunctionResponse())
    scripted_server.script("InvokeAsync", records.accepted())
    client = driver.client(scripted_server.target, timeout=7)

    driver.do(client.functions.get, "f")
    driver.do(client.invoke_async, "f")

    for method in ("GetFunction", "InvokeAsync"):
        [deadline] = scripted_server.deadlines[method]
        assert deadline is not None
        assert 6 < deadline < 7.1  # gRPC rounds


def test_repeats_are_logged_and_nothing_is_printed(
    driver: Driver,
    scripted_server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scripted_server.script(
        "InvokeAsync",
        Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="BROKER_AWAY", message="the broker is away"),
        records.accepted(),
    )

    driver.do(driver.client(scripted_server.target).invoke_async, "figlet")

    [record] = [record for record in caplog.records if record.name.startswith("homing")]
    assert (record.name, record.levelno) == ("homing", logging.WARNING)
    assert "the broker is away" in record.getMessage()
    assert capfd.readouterr() == ("", "")


def test_a_closed_client_says_so(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)
    used, unused = driver.client(scripted_server.target), driver.client(scripted_server.target)
    driver.do(used.invoke, "figlet")

    for client in (used, unused):
        driver.do(client.close)
        driver.do(client.close)
        with pytest.raises(homing.ClosedClientError, match="this client is closed"):
            driver.do(client.invoke, "figlet")
        with pytest.raises(homing.ClosedClientError):
            driver.do(client.invoke_async, "figlet")


def test_closing_ends_a_running_call(driver: Driver, scripted_server: ScriptedServer) -> None:
    release = threading.Event()
    scripted_server.script("Invoke", lambda *_: release.wait(10) and ANSWER)
    client = driver.client(scripted_server.target)
    driver.later(0.2, client.close)

    with pytest.raises(homing.ClosedClientError, match="closed during the call"):
        driver.do(client.invoke, "figlet")
    release.set()


def test_leaving_the_context_closes(scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)
    with homing.Client(scripted_server.target) as client:
        client.invoke("figlet")

    with pytest.raises(homing.ClosedClientError):
        client.invoke("figlet")


async def test_leaving_the_asynchronous_context_closes(scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)
    async with homing.AsyncClient(scripted_server.target) as client:
        await client.invoke("figlet")

    with pytest.raises(homing.ClosedClientError):
        await client.invoke("figlet")


def test_another_event_loop_is_refused(scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)
    client = homing.AsyncClient(scripted_server.target)  # made outside any loop
    with asyncio.Runner() as first:
        first.run(client.invoke("figlet"))
        with asyncio.Runner() as second:
            for call in (
                lambda: client.invoke("figlet"),
                lambda: client.invoke_batch("figlet", ["x"]),
                lambda: anext(client.map("figlet", ["x"])),
                lambda: anext(client.list_invocations()),
                lambda: client.watch_results()._start(),
                lambda: client.function("figlet", input=str, output=str)("x"),
                client.close,
            ):
                with pytest.raises(homing.WrongLoopError, match="event loop of its first use"):
                    second.run(call())
        first.run(client.close())


def test_cancelling_the_caller_cancels_the_call(scripted_server: ScriptedServer) -> None:
    begun, gone = threading.Event(), threading.Event()

    def forever(_: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(gone.set)
        begun.set()
        gone.wait(10)
        return ANSWER

    scripted_server.script("Invoke", forever)

    async def main() -> None:
        async with homing.AsyncClient(scripted_server.target) as client:
            call = asyncio.create_task(client.invoke("figlet"))
            await asyncio.to_thread(begun.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())

    assert gone.wait(10)


def test_a_client_is_refused_in_a_forked_process(scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)
    program = """
        import asyncio, os, sys
        import homing

        client = homing.Client(sys.argv[1])
        aio = homing.AsyncClient(sys.argv[1])
        client.invoke("figlet")
        child = os.fork()
        if child == 0:
            for call in (
                lambda: client.invoke("figlet"),
                lambda: client.functions.get("figlet"),
                lambda: client.handle("some-id").done(),
                lambda: client.invoke_batch("figlet", ["x"]),
                lambda: list(client.map("figlet", ["x"])),
                lambda: list(client.list_invocations()),
                lambda: client.watch_results(),
                lambda: client.function("figlet", input=str, output=str)("x"),
            ):
                try:
                    call()
                except homing.ForkedClientError as error:
                    print(error)
            try:
                asyncio.run(aio.invoke("figlet"))
            except homing.ForkedClientError as error:
                print(error)
            client.close()
            asyncio.run(aio.close())
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        print(client.invoke("figlet").text)
        client.close()
    """

    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), scripted_server.target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    *refused, last = run.stdout.splitlines()
    assert last == "ok", run.stderr
    assert len(refused) == 9
    assert all("was made in process" in line for line in refused)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate of this test")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "ca.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return tmp_path / "ca.pem"


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[ScriptedServer]:
    key = certificate.with_name("key.pem").read_bytes()
    server = ScriptedServer(grpc.ssl_server_credentials([(key, certificate.read_bytes())]))
    server.start()
    yield server
    server.stop()


def test_a_certificate_authority_means_tls(
    driver: Driver, tls_server: ScriptedServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls_server.script("Invoke", ANSWER)
    by_argument = driver.client(tls_server.target, tls_ca=certificate)
    monkeypatch.setenv("HOMING_TLS_CA", os.fspath(certificate))
    by_environment = driver.client(tls_server.target)

    assert driver.do(by_argument.invoke, "figlet").text == "ok"
    assert driver.do(by_environment.invoke, "figlet").text == "ok"


def test_a_call_that_something_else_cancelled_is_made_again(driver: Driver, scripted_server: ScriptedServer) -> None:
    """A server without room, or a proxy that goes away, ends calls so."""
    cancelled = Refusal(code=grpc.StatusCode.CANCELLED, message="RST_STREAM")
    scripted_server.script("InvokeAsync", cancelled, cancelled, records.accepted())
    scripted_server.script("GetFunction", cancelled, function_service_pb2.GetFunctionResponse())
    scripted_server.script("Invoke", cancelled, ANSWER)
    client = driver.client(scripted_server.target)

    driver.do(client.invoke_async, "figlet")
    driver.do(client.functions.get, "figlet")
    with pytest.raises(homing.ServerError) as once:
        driver.do(client.invoke, "figlet")  # may have run

    first, *again = scripted_server.requests["InvokeAsync"]
    assert [request.request_id for request in again] == [first.request_id] * 2
    assert once.value.code is grpc.StatusCode.CANCELLED
    assert len(scripted_server.requests["Invoke"]) == 1
