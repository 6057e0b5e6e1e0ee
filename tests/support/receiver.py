"""A receiver of callbacks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

Request = tuple[str, dict[str, str], bytes]
"""Path, headers by their names in lower case, and body."""


@contextmanager
def receiver(*, statuses: list[int]) -> Iterator[tuple[str, Queue[Request]]]:
    """Serve a receiver on loopback that answers with these statuses in turn, then with the last; yield its URL."""
    received: Queue[Request] = Queue()
    answers = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.put((self.path, {k: v for k, v in headers.items() if k != "date"}, body))
            self.send_response(next(answers, statuses[-1]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()
