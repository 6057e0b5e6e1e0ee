"""A function that fails as it is told, to see what becomes of failures.

Its payload is a JSON object, or nothing, with any of the fields of `Order`. Which attempt it is, it reads from the
header X-Homing-Attempt, so it keeps no state and any instance may run any attempt.

`flaky.py serve` answers HTTP on port 8080. Where the environment variable FLAKY_START is `exit` it ends at once with
status 3 instead, where it is `never` it never listens. `flaky.py` alone runs once, for the process runtime: a failing
attempt is an exit status of 1 there.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn

CHUNK = b"x" * 65536


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to do."""

    fail: int = 0
    """How many attempts fail, counted from the first; -1 means all."""
    status: int = 503
    """What a failing attempt answers."""
    retry_after: str = ""
    """The header Retry-After of a failing attempt."""
    final: bool = False
    """Whether a failing attempt says that no other one helps."""
    delay: float = 0.0
    """Seconds to take first."""
    hang: bool = False
    """Never answer."""
    die: bool = False
    """Kill the process that serves, and with it the container."""
    garbage: bool = False
    """Answer something that is not HTTP."""
    flood: int = 0
    """Answer with so many bytes."""
    endless: bool = False
    """Answer with bytes that never end, without saying how many they are."""
    lie: int = 0
    """Announce so many bytes more than the answer has."""
    key: str = ""
    """Comes back in the answer."""

    def fails(self, attempt: int) -> bool:
        """Tell whether this attempt fails."""
        return self.fail < 0 or attempt <= self.fail


def read_order(payload: bytes) -> Order:
    """Parse a payload; raises ValueError or TypeError where it is not an order."""
    return Order(**json.loads(payload)) if payload.strip() else Order()


def report(order: Order, attempt: int, call_id: str) -> bytes:
    """Return what an attempt answers that is not told otherwise."""
    return json.dumps({"attempt": attempt, "call_id": call_id, "order": asdict(order)}).encode() + b"\n"


def hang() -> NoReturn:
    """Wait for a signal that ends the process."""
    while True:
        signal.pause() if threading.current_thread() is threading.main_thread() else time.sleep(3600)


def flood(write: Callable[[bytes], object], size: int) -> None:
    """Write so many bytes, or as many as the reader takes."""
    for left in range(size, 0, -len(CHUNK)):
        write(CHUNK[:left])


class Handler(BaseHTTPRequestHandler):
    """Answers as it is told."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that the server is well."""
        self._answer(200, b"OK\n")

    def do_POST(self) -> None:
        """Do what the payload says."""
        attempt, call_id = int(self.headers.get("X-Homing-Attempt", "1")), self.headers.get("X-Call-Id", "")
        try:
            order = read_order(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        except (ValueError, TypeError) as error:
            self._answer(400, f"not an order: {error}\n".encode())
            return
        print(f"call {call_id} attempt {attempt} key {order.key!r}", file=sys.stderr, flush=True)
        time.sleep(order.delay)
        if order.hang:
            hang()
        elif order.die:
            os._exit(137)
        elif order.garbage:
            self.close_connection = True
            self.wfile.write(b"\x00\xff this is not HTTP\r\n\r\n")
        elif order.fails(attempt):
            extra = {"Retry-After": order.retry_after} if order.retry_after else {}
            extra |= {"X-Homing-Retry": "no"} if order.final else {}
            self._answer(order.status, report(order, attempt, call_id), extra)
        elif order.flood:
            self.send_response(200)
            self.send_header("Content-Length", str(order.flood))
            self.end_headers()
            flood(self.wfile.write, order.flood)
        elif order.endless:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(CHUNK)
        else:
            self.close_connection |= order.lie > 0
            self._answer(200, report(order, attempt, call_id), lie=order.lie)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, lie: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + lie))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Leave the log to what was told."""


def serve() -> None:
    """Answer HTTP until a SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    start = os.environ.get("FLAKY_START", "")
    if start == "exit":
        sys.exit(3)
    if start == "never":
        hang()
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()


def run_once() -> None:
    """Do what the payload on standard input says."""
    attempt, call_id = int(os.environ.get("Http_X_Homing_Attempt", "1")), os.environ.get("Http_X_Call_Id", "")  # noqa: SIM112
    order = read_order(sys.stdin.buffer.read())
    time.sleep(order.delay)
    if order.hang:
        hang()
    if order.die:
        os.kill(os.getpid(), signal.SIGKILL)
    if order.flood:
        flood(sys.stdout.buffer.write, order.flood)
    else:
        sys.stdout.buffer.write(report(order, attempt, call_id))
    sys.stdout.flush()
    sys.exit(order.fails(attempt))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else run_once()
