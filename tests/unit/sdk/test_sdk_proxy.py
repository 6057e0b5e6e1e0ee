"""Proxies that the environment names are used only where that was asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

import homing
from homing.v1 import invocation_service_pb2
from support import records
from support.scripted_server import ScriptedServer
from support.sdk_driver import Driver

ANSWER = invocation_service_pb2.InvokeResponse(invocation=records.invocation())


class Proxy:
    """Takes down what it is asked for, and hangs up."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked.append(connection.recv(4096).decode().partition("\r\n")[0])


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy()
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", made.url)
    yield made
    made.close()


def test_calls_go_past_a_proxy(driver: Driver, scripted_server: ScriptedServer, proxy: Proxy) -> None:
    scripted_server.script("Invoke", ANSWER)

    assert driver.do(driver.client(scripted_server.target).invoke, "figlet").text == "ok"
    assert proxy.asked == []


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_they_take_it_where_it_is_asked_for(
    driver: Driver, scripted_server: ScriptedServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("HOMING_USE_PROXY", "true" if by == "environment" else "false")
    client = driver.client(scripted_server.target, use_proxy=True if by == "argument" else None)

    with pytest.raises(homing.UnavailableError):
        driver.do(client.invoke, "figlet")

    assert proxy.asked[0] == f"CONNECT {scripted_server.target} HTTP/1.1"


def test_the_setting_is_true_or_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_USE_PROXY", "perhaps")

    with pytest.raises(homing.InvalidRequestError, match="HOMING_USE_PROXY: must be true or false, is 'perhaps'"):
        homing.Client()
