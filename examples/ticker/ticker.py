"""A function that takes its time: it logs every tick, reports its progress, and fails at the end where it is told to.

Its payload is a JSON object with any of the fields of `Order`: `{"failure": true, "seconds": 30}`. Where homing gives
it a URL for its progress, in the header X-Homing-Progress-Url, it POSTs percent and text there after each tick.

`ticker.py serve` answers HTTP on port 8080. `ticker.py` alone runs once, for the process runtime: the answer goes to
standard output, the log to standard error, and a failure is an exit status of 1.
"""

import json
import os
import signal
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPORT_TIMEOUT = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to do."""

    failure: bool = False
    """Whether to fail at the end."""
    seconds: float = 5.0
    """How long to run."""
    interval: float = 1.0
    """Seconds from tick to tick."""

    @property
    def ticks(self) -> int:
        """How many ticks there are."""
        return max(1, round(self.seconds / self.interval))


def read_order(payload: bytes) -> Order:
    """Parse a payload; raises ValueError or TypeError where it is not an order."""
    return Order(**json.loads(payload)) if payload.strip() else Order()


def log(text: str) -> None:
    """Write a line of the log."""
    print(text, file=sys.stderr, flush=True)


def tick(order: Order, progress_url: str) -> None:
    """Take the time, a tick after the other."""
    log("started")
    begin = time.monotonic()
    for number in range(1, order.ticks + 1):
        time.sleep(max(0.0, begin + number * order.seconds / order.ticks - time.monotonic()))
        text = f"tick {number} of {order.ticks}"
        log(text)
        if progress_url:
            report(progress_url, 100 * number / order.ticks, text)


def report(url: str, percent: float, text: str) -> None:
    """Tell how far it is. The work goes on where nobody hears it."""
    body = json.dumps({"percent": percent, "text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 homing's own URL
    try:
        urllib.request.urlopen(request, timeout=REPORT_TIMEOUT).close()  # noqa: S310 same
    except OSError as error:
        log(f"the progress could not be reported: {error}")


def run(payload: bytes, progress_url: str) -> tuple[int, bytes]:
    """Do what a payload says; return the HTTP status and the body of the answer."""
    try:
        order = read_order(payload)
    except (ValueError, TypeError) as error:
        return 400, f"not an order: {error}\n".encode()
    tick(order, progress_url)
    if order.failure:
        log("failed, as it was told")
        return 500, b"it was told to fail\n"
    return 200, json.dumps({"ticks": order.ticks, "order": asdict(order)}).encode() + b"\n"


class Handler(BaseHTTPRequestHandler):
    """Runs once a request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that the server is well."""
        self._answer(200, b"OK\n")

    def do_POST(self) -> None:
        """Do what the payload says."""
        payload = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(*run(payload, self.headers.get("X-Homing-Progress-Url", "")))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Leave the log to the ticks."""


class Server(ThreadingHTTPServer):
    """Keeps the log to the ticks."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of callers that broke their connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve() -> None:
    """Answer HTTP until a SIGTERM, which ends what runs too."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(("", 8080), Handler).serve_forever()


def run_once() -> None:
    """Do what the payload on standard input says."""
    status, body = run(sys.stdin.buffer.read(), os.environ.get("Http_X_Homing_Progress_Url", ""))  # noqa: SIM112
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
    sys.exit(status != 200)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else run_once()
