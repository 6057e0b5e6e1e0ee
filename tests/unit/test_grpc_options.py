"""The options of gRPC channels and servers: gRPC takes no notice of a name that it does not know."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its stubs do not have it

from homing._core import settings
from homing_server.front.grpc.server import _OPTIONS

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(cygrpc.__file__).read_bytes()
NAME = re.compile(r"\"(grpc\.[a-z0-9_.]+)\"")
FOLDERS = ("sdk/src", "cli/src", "core/src", "server/src", "worker/src", "bench", "tests", "soak")
FASTER = 100
"""So much faster the pings of the test come, and may come."""


def used() -> dict[str, list[str]]:
    """Return the names that are used, each with the files that use it."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for file in {*(ROOT / folder).rglob("*.py")} - {Path(__file__)}:
            for name in NAME.findall(file.read_text()):
                found.setdefault(name, []).append(str(file.relative_to(ROOT)))
    return found


def is_known(name: str) -> bool:
    """Tell whether the library has a string that ends so, as C has strings; all of its options begin alike."""
    return name.encode() + b"\0" in LIBRARY


def test_the_library_knows_each_option() -> None:
    names = used()

    assert {"grpc.keepalive_time_ms", "grpc.http2.min_ping_interval_without_data_ms"} <= names.keys()
    assert {name: files for name, files in names.items() if not is_known(name)} == {}


def test_a_misspelt_one_is_noticed() -> None:
    assert not is_known("grpc.http2.min_time_between_pings_without_data" + "_ms")
    assert not is_known("grpc.keepalive_time" + "_m")


def faster(options: tuple[tuple[str, int | str], ...]) -> list[tuple[str, int | str]]:
    """Return options with which pings come, and may come, so much faster."""
    quick = {"grpc.keepalive_time_ms", "grpc.http2.min_ping_interval_without_data_ms"}
    return [(name, value // FASTER if name in quick and isinstance(value, int) else value) for name, value in options]


@pytest.mark.parametrize("limited", [True, False], ids=["as it is", "without the limit's option"])
def test_a_call_outlives_the_pings_of_its_client(*, limited: bool) -> None:
    """A call of minutes: the client pings every 30 s, here every 0.3 s, and the server must not take it for a flood."""
    over = threading.Event()
    # The pings of the server would spare the client its own.
    left_out = {"grpc.keepalive_time_ms"} | (set() if limited else {"grpc.http2.min_ping_interval_without_data_ms"})
    options = [one for one in faster(_OPTIONS) if one[0] not in left_out]
    server = grpc.server(ThreadPoolExecutor(1), options=options)

    def wait(request: bytes, _context: grpc.ServicerContext) -> bytes:
        over.wait(3)
        return request

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(wait)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", {"Wait": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=faster(settings.CHANNEL_OPTIONS)) as channel:
            call: Callable[..., bytes] = channel.unary_unary("/test/Wait")
            if limited:
                assert call(b"x", timeout=60) == b"x"
            else:  # else this test could not fail
                with pytest.raises(grpc.RpcError, match="ping"):
                    call(b"x", timeout=60)
    finally:
        over.set()
        server.stop(None).wait()
