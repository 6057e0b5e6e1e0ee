"""A function that misbehaves as the path of a request says, with as little HTTP as it takes."""

import hashlib
import json
import os
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import unquote

COUNTS: dict[str, int] = {}
SEEN: list[str] = []
"""The paths of all requests."""


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Content-Type: text/plain", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_request(connection: socket.socket) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the path, the headers and the body of the next request; raises EOFError where there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            raise EOFError
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in rest)]
    length = int(dict(pairs).get("content-length", "0"))
    while len(body) < length:
        body += connection.recv(65536)
    return unquote(first.split()[1]), pairs, body


def forever(connection: socket.socket, chunk: bytes) -> None:
    """Send the same for ever."""
    while True:
        connection.sendall(chunk)


def behave(  # noqa: C901, PLR0912 one case for each way to misbehave
    connection: socket.socket, path: str, pairs: list[tuple[str, str]], body: bytes
) -> bool:
    """Do what the path says; tell whether the connection goes on."""
    headers = dict(pairs)
    SEEN.append(path)
    match path.split("?", maxsplit=1)[0].strip("/").split("/"):
        case ["_", "health"]:
            connection.sendall(answer(b"OK"))
        case [""]:
            connection.sendall(answer(body))
        case ["echo"]:
            told = {"path": path, "headers": headers, "pairs": pairs, "body": body.decode("latin-1")}
            told["environment"] = dict(os.environ)
            connection.sendall(answer(json.dumps(told).encode()))
        case ["sleep", seconds]:
            time.sleep(float(seconds))
            connection.sendall(answer(b"slept"))
        case ["say", times, pause, *status]:
            for number in range(1, int(times) + 1):
                sys.stdout.write(f"{body.decode()} {number}\n")
                time.sleep(float(pause))
            sys.stderr.write(f"{body.decode()} done\n")
            connection.sendall(answer(b"said", f"{''.join(status) or '200'} Told"))
        case ["print"]:
            os.write(1, body)
            connection.sendall(answer(b"printed"))
        case ["shout", seconds]:
            until = time.monotonic() + float(seconds)
            while time.monotonic() < until:
                os.write(1, (b"x" * 99 + b"\n") * 600)
            connection.sendall(answer(b"shouted"))
        case ["progress"]:
            order = urllib.request.Request(
                headers["x-homing-progress-url"], data=body, headers={"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(order, timeout=10) as told:
                connection.sendall(answer(str(told.status).encode()))
        case ["seen"]:
            connection.sendall(answer(json.dumps(SEEN).encode()))
        case ["eat", megabytes]:
            eaten = bytearray(int(megabytes) * 1024 * 1024)
            eaten[::4096] = b"x" * len(eaten[::4096])
            connection.sendall(answer(b"eaten"))
        case ["header", size]:
            connection.sendall(answer(b"ok", "200 OK", f"X-Long: {'x' * int(size)}"))
        case ["hang"]:
            time.sleep(3600)
        case ["flood"]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            forever(connection, b"x" * 1_000_000)
        case ["flood-length"]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n")
            forever(connection, b"x" * 1_000_000)
        case ["garbage"]:
            connection.sendall(b"\x00\xffthis is no HTTP\n" * 10)
            return False
        case ["headers"]:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            forever(connection, b"X-More: and more\r\n" * 1000)
        case ["long-header"]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            forever(connection, b"x" * 65536)
        case ["continue"]:
            forever(connection, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
        case ["short"]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
            return False
        case ["close"]:
            return False
        case ["odd-header"]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Odd: caf\xe9 \xff\r\nContent-Length: 2\r\n\r\nok")
        case ["size", size]:
            connection.sendall(answer(b"x" * int(size)))
        case ["exit", status]:
            sys.stderr.write("going down\n")
            os._exit(int(status))
        case ["redirect"]:
            connection.sendall(answer(b"", "302 Found", "Location: /"))
        case ["status", status, *more]:
            connection.sendall(answer(b"as told", f"{status} Told", *more))
        case ["fail", times, status]:
            key = headers.get("x-call-id", "")
            COUNTS[key] = COUNTS.get(key, 0) + 1
            failing = COUNTS[key] <= int(times)
            connection.sendall(answer(str(COUNTS[key]).encode(), f"{status} Told" if failing else "200 OK"))
        case ["secrets"]:
            folder = Path("/var/openfaas/secrets")
            seen = {
                path.name: [hashlib.sha256(path.read_bytes()).hexdigest(), oct(path.stat().st_mode & 0o777)]
                for path in folder.iterdir()
            }
            connection.sendall(answer(json.dumps(seen).encode()))
        case ["who"]:
            connection.sendall(answer(f"{os.getuid()}:{os.getgid()}".encode()))
        case ["fill", where, size]:
            try:
                with Path("/", where, "filled").open("wb") as file:
                    file.writelines(bytes(2**20) for _ in range(int(size)))
            except OSError as error:
                connection.sendall(answer(str(error).encode(), "507 Insufficient Storage"))
            else:
                connection.sendall(answer(b"filled"))
        case ["reach", host, port]:
            try:
                socket.create_connection((host, int(port)), timeout=2).close()
            except OSError as error:
                connection.sendall(answer(str(error).encode(), "502 Bad Gateway"))
            else:
                connection.sendall(answer(b"reached"))
        case ["write", *where]:
            try:
                Path("/", *where).write_text("x")
            except OSError as error:
                connection.sendall(answer(str(error).encode(), "403 Forbidden"))
            else:
                connection.sendall(answer(b"written"))
        case _:
            connection.sendall(answer(b"", "404 Not Found"))
    return True


def serve(connection: socket.socket) -> None:
    """Serve a connection until it is closed."""
    with connection:
        try:
            while behave(connection, *read_request(connection)):
                pass
        except (EOFError, OSError):
            pass


def main() -> None:
    """Serve, unless the environment says to fail at the start."""
    match os.environ.get("START", ""):
        case "exit":
            sys.stderr.write("cannot start: no luck today\n")
            sys.exit(7)
        case "deaf":
            time.sleep(3600)
        case "eat":
            eaten = bytearray(200 * 1024 * 1024)
            eaten[::4096] = b"x" * len(eaten[::4096])
    if "DELAY" in os.environ:
        time.sleep(float(os.environ["DELAY"]))
    listener = socket.create_server(("", 8080))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
