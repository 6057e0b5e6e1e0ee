"""A program that serves HTTP on $PORT as a test wants it to, with nothing but the standard library."""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOGETHER = threading.Barrier(4, timeout=20)
"""Answers once four calls are there."""
HEALTH = iter([503, 404])
"""What the first ones are answered that ask whether it is ready."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(next(HEALTH, 200), b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        match self.path:
            case "/pid":
                body = str(os.getpid()).encode()
            case "/env":
                secrets = Path(os.environ.get("HOMING_SECRETS_DIR", "/nowhere"))
                found = {file.name: file.read_text() for file in secrets.iterdir()} if secrets.exists() else {}
                body = json.dumps({"env": dict(os.environ), "secrets": found}).encode()
            case "/together":
                TOGETHER.wait()
            case "/say":
                sys.stdout.write(f"out {body.decode()}\n")
                sys.stdout.flush()
                sys.stderr.write(f"err {body.decode()}\n")
            case "/flood":
                for _ in range(200):
                    sys.stderr.write("x" * 100_000 + "\n")
            case "/hang":
                time.sleep(3600)
            case "/die":
                sys.stderr.write("it was too much\n")
                os._exit(3)
        self.answer(200, body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.headers["Content-Type"] or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(*, stubborn: bool) -> None:
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:

        def stop(*_: object) -> None:
            if note := os.environ.get("STOPPED"):
                Path(note).write_text("by SIGTERM", encoding="utf-8")
            os._exit(0)

        signal.signal(signal.SIGTERM, stop)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    except OSError:
        if not stubborn:
            raise
        time.sleep(3600)
    server.serve_forever()


if __name__ == "__main__":
    main(stubborn="stubborn" in sys.argv)
