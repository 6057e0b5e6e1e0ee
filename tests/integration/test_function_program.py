"""`python -m homing_function`: the examples as processes of their own, called by HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from homing_worker.runtime.listening_port import free_port
from support.docker import ROOT

EXAMPLES = ROOT / "examples"


class Served:
    """A running program."""

    def __init__(self, file: Path, *arguments: str, **environment: str) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "homing_function", str(file), *arguments],
            env=os.environ | {"HOST": "127.0.0.1", "PORT": str(self.port)} | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def until_ready(self) -> None:
        while True:
            assert self.process.poll() is None, self.output()
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 20):
                return

    @contextlib.contextmanager
    def calling(self, body: bytes = b"", path: str = "/", **headers: str) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request("POST", path, body, sent)
            yield connection.getresponse()

    def call(self, body: bytes = b"", path: str = "/", **headers: str) -> tuple[int, str]:
        with self.calling(body, path, **headers) as answer:
            return answer.status, answer.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def output(self) -> str:
        """Return all that it wrote, once it has ended."""
        assert self.process.stdout is not None
        self.process.wait(20)
        return self.process.stdout.read()


@contextlib.contextmanager
def serving(file: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    served = Served(file, *arguments, **environment)
    try:
        served.until_ready()
        yield served
    finally:
        served.process.kill()
        served.process.wait(20)
        assert served.process.stdout is not None
        served.process.stdout.close()


def refused(file: Path, *arguments: str, **environment: str) -> str:
    """Return what a program that does not start says, in which status 1 is meant."""
    served = Served(file, *arguments, **environment)
    said = served.output()
    assert served.process.returncode == 1
    assert served.process.stdout is not None
    served.process.stdout.close()
    return said


def app(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "app.py"
    file.write_text(f"from homing_function import Context, function\n\n{text}")
    return file


def test_the_examples_answer_as_their_readme_says() -> None:
    with serving(EXAMPLES / "greeting" / "app.py") as greeting:
        assert greeting.call(b"world", X_Homing_Attempt="2") == (200, "Hello world, this is attempt 2\n")
        assert greeting.call(path="/_/health") == (200, "OK\n")
    with serving(EXAMPLES / "statistics" / "app.py") as statistics:
        status, body = statistics.call(b'{"values": [1, 2, 3]}')
        assert (status, json.loads(body)) == (200, {"name": "sample", "count": 3, "mean": 2.0, "deviation": 1.0})
        assert statistics.call(b'{"values": ["many"]}') == (
            400, "sample.values[0]: must be a finite float, is str 'many'\n"
        )  # fmt: skip
        assert statistics.call(b'{"values": []}') == (500, "there is nothing to summarize\n")


def test_a_stream_comes_item_by_item() -> None:
    with (
        serving(EXAMPLES / "countdown" / "app.py") as countdown,
        countdown.calling(b'{"start": 2, "seconds": 3600}') as answer,
    ):
        # The next item is an hour away.
        assert answer.readline() == b"2\n"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_what_runs_may_finish_after_sigterm_and_nothing_begins(tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "begun"
    os.mkfifo(go)
    os.mkfifo(begun)
    slow = f"""
@function
def slow() -> str:
    open({str(begun)!r}, "w").close()
    open({str(go)!r}).read()
    return "done"
"""
    with serving(app(tmp_path, slow)) as served:
        answers: list[tuple[int, str]] = []
        calling = threading.Thread(target=lambda: answers.append(served.call()))
        calling.start()
        begun.read_text()
        served.process.send_signal(signal.SIGTERM)
        while True:
            try:
                socket.create_connection(("127.0.0.1", served.port), 20).close()
            except ConnectionRefusedError:
                break
            except ConnectionResetError:
                pass  # it was about to be taken
        go.write_text("")
        calling.join(20)
        assert answers == [(200, "done")]
        assert served.process.wait(20) == -signal.SIGTERM


def test_each_line_bears_the_id_of_its_call_where_several_are_served(tmp_path: Path) -> None:
    text = """
import logging
import threading

together = threading.Barrier(2, timeout=20)

@function(concurrency=2)
def chat(name: str) -> None:
    print("I am", end=" ")
    together.wait()
    print(name)
    logging.getLogger("chat").info("bye %s", name)
    print("half a line", end="")
"""
    with serving(app(tmp_path, text)) as served:
        calls = [
            threading.Thread(target=served.call, args=(name.encode(),), kwargs={"X_Call_Id": f"id-{name}"})
            for name in ("ann", "bob")
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join(20)
        served.stop()
        lines = served.output().splitlines()

    assert sorted(lines) == sorted(
        f"[id-{name}] {line}"
        for name in ("ann", "bob")
        for line in (f"I am {name}", f"INFO chat: bye {name}", "half a line")
    )


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        ("x = 1\n", (), "declares no function: put @function before one"),
        ("@function\ndef a(): ...\n\n@function\ndef b(): ...\n", (), "there are several functions, a, b: say which by"),
        ("@function\ndef a(): ...\n", ("--function", "c"), "there is no function c; there is a"),
        ("@function\ndef a(): ...\n\n@function(name='a')\ndef b(): ...\n", (), "declares two functions of the name a"),
        ("@function\ndef a(x: int, y: int): ...\n", (), "DeclarationError: the function a has the parameters x and y"),
        ("import nowhere\n", (), "ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit('not today')\n", (), "SystemExit: not today"),
        ("def (\n", (), "SyntaxError: invalid syntax"),
    ],
)
def test_a_file_that_cannot_be_served_is_told(tmp_path: Path, text: str, arguments: tuple[str, ...], told: str) -> None:
    said = refused(app(tmp_path, text), *arguments)

    assert told in said
    assert "homing_function/" not in said


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(EXAMPLES / "greeting" / "app.py", PORT=str(port))
    assert said.startswith(f"port {port} of 127.0.0.1 cannot be served: ")
    assert refused(EXAMPLES / "greeting" / "app.py", PORT="http").startswith("port http of 127.0.0.1 cannot be served")
    assert "none.py cannot be read: No such file or directory" in refused(tmp_path / "none.py")
