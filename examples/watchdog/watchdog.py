"""Serve a program over HTTP on port 8080, one run a request: body on standard input, answer from standard output.

The program is the environment variable `fprocess`, split at spaces; no shell is involved. It sees the request as
environment variables: Http_Method, Http_Path, Http_Query and Http_NAME for each header, so X-Call-Id is
Http_X_Call_Id. Headers whose names begin with Proxy are left out, since HTTP libraries would go by them, and those that
have other characters than letters, digits and hyphens. An exit status other than 0 answers 500. What it writes to
standard error goes to the container's log.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Running:
    """The requests that are being worked on, so that a stop can wait for them."""

    def __init__(self) -> None:
        self.draining = threading.Event()
        self._changed = threading.Condition()
        self._count = 0

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_until_none(self) -> None:
        """Return once nothing is being worked on."""
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)


RUNNING = Running()
NAMED = re.compile(r"(?!proxy)[a-z0-9-]+", re.IGNORECASE)
PROGRAM = os.environ.get("fprocess", "").split()  # noqa: SIM112 - this is how watchdogs spell it


class Watchdog(BaseHTTPRequestHandler):
    """Runs the program for each request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Run the program once, or say how this server is."""
        # Not `path`, which has lost all slashes but one at its beginning.
        path, _, query = self.requestline.split()[1].partition("?")
        if path == "/_/health":
            healthy = not RUNNING.draining.is_set()
            self._answer(HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE, b"OK\n" if healthy else b"")
        elif "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self._answer(HTTPStatus.LENGTH_REQUIRED, b"a body needs Content-Length\n")
        else:
            with RUNNING:
                self._run(path, query)

    do_GET = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 - http.server names them

    def _run(self, path: str, query: str) -> None:
        start = time.monotonic()
        environment = {
            "Http_" + name.replace("-", "_"): value for name, value in self.headers.items() if NAMED.fullmatch(name)
        }
        environment |= {"Http_Method": self.command, "Http_Path": path, "Http_Query": query}
        done = subprocess.run(  # noqa: S603 - the operator chose the program
            PROGRAM,
            input=self.rfile.read(int(self.headers.get("Content-Length", "0"))),
            stdout=subprocess.PIPE,
            env=os.environ | environment,
            check=False,
        )
        headers = {
            "Content-Type": self.headers.get("Content-Type", "text/plain"),
            "X-Duration-Seconds": f"{time.monotonic() - start:f}",
        }
        if done.returncode == 0:
            self._answer(HTTPStatus.OK, done.stdout, headers)
        else:
            text = f"exit status {done.returncode}\n".encode() + done.stdout
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, text, headers)

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Type": "text/plain"}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Leave the log to the program."""


def main() -> None:
    """Serve until a SIGTERM, then finish what runs."""
    if not PROGRAM:
        sys.exit("fprocess says which program to run; it is not set")
    server = ThreadingHTTPServer(("", int(os.environ.get("port", "8080"))), Watchdog)  # noqa: SIM112 - same

    def stop(*_: object) -> None:
        RUNNING.draining.set()
        # shutdown() waits for serve_forever(), which this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    RUNNING.wait_until_none()


if __name__ == "__main__":
    main()
