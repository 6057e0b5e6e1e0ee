"""Calls that take long outlive the pings of the SDK: with time running thirty times as fast as it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import homing
from homing._core.settings import CHANNEL_OPTIONS
from homing.v1 import invocation_service_pb2
from homing_server.front.grpc.server import OPTIONS
from support import records

FASTER = 30  # gRPC pings every second at the most, and the SDK every 30
LONG = 180
"""So many seconds a call takes."""
PERMITTED = "grpc.http2.min_ping_interval_without_data_ms"
OWN = "grpc.keepalive_time_ms"
"""How often the server itself pings, where it hears nothing: that spares clients their pings."""

Options = tuple[tuple[str, Any], ...]


def faster(options: Options) -> Options:
    return tuple((name, value // FASTER if name.endswith("_ms") else value) for name, value in options)


def without(*names: str) -> Options:
    return tuple(option for option in OPTIONS if option[0] not in names)


def late(*_: Any) -> bytes:
    """Answer late, and send nothing before."""
    threading.Event().wait(LONG / FASTER)
    return invocation_service_pb2.InvokeResponse(invocation=records.invocation()).SerializeToString()


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[[Options], str]:
    monkeypatch.setattr("homing._core.settings.CHANNEL_OPTIONS", faster(CHANNEL_OPTIONS))

    def run(options: Options) -> str:
        with ThreadPoolExecutor(1) as pool:
            server = grpc.server(pool, options=faster(options))
            server.add_registered_method_handlers(
                "homing.v1.InvocationService", {"Invoke": grpc.unary_unary_rpc_method_handler(late)}
            )
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            try:
                with homing.Client(f"127.0.0.1:{port}") as client:
                    return client.invoke("figlet").text
            finally:
                server.stop(None)

    return run


def test_a_long_call_outlives_the_pings(invoke: Callable[[Options], str]) -> None:
    assert invoke(without(OWN)) == "ok"


def test_with_what_grpc_permits_by_itself_it_would_not(invoke: Callable[[Options], str]) -> None:
    with pytest.raises(homing.UnavailableError, match="pings"):
        invoke(without(OWN, PERMITTED))
