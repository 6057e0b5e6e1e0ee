"""Processes that have everything imported when they begin: each is forked from one that did nothing but import it.

To import a server takes a second of processor time, and the tests start many hundreds of servers and workers.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
MAX_ORDER = 2**17
"""The most bytes of what is asked for; the environment is most of it."""
STOP_TIMEOUT = 10.0


class Forked:
    """A process that was forked: what tests use of `subprocess.Popen`, with the same meaning."""

    def __init__(self, report: int, stderr: int) -> None:
        self.stderr = open(stderr, encoding="utf-8")  # noqa: SIM115 closed by who reads it
        self._report = open(report, "rb", buffering=0)  # noqa: SIM115 closed when the status has come
        told = self._report.readline()
        if not told:
            raise RuntimeError("what processes are forked from has ended; its standard error tells why")
        self.pid = int(told)
        self._status: int | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._hear_of_the_end, daemon=True).start()

    def poll(self) -> int | None:
        """Return the exit status, the negative number of a signal, or None while it runs."""
        return self._status

    def wait(self, timeout: float) -> int:
        """Return the exit status once it has ended; raises subprocess.TimeoutExpired."""
        self._ended.wait(timeout)
        if self._status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self._status

    def _hear_of_the_end(self) -> None:
        with self._report as report:
            self._status = int(report.readline())
        self._ended.set()


class ForkServer:
    """The process that the others are forked from. It ends with the tests, however they end, and kills what is left."""

    def __init__(self, *modules: str) -> None:
        """Start it.

        :param modules: What it imports. None of it may start a thread.
        """
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from support.fork_server import serve; serve({theirs.fileno()}, {modules})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import sys; sys.path.append({str(TESTS)!r}); {code}"],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def fork(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Forked:
        """Start a process that calls `main` of a module, as leader of a session, with nothing on its standard input."""
        order = {
            "module": module,
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(Path.cwd()),
        }
        report, reporter = os.pipe()
        reader, stderr = os.pipe()
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [1, stderr, reporter])
        finally:
            os.close(reporter)
            os.close(stderr)
        return Forked(report, reader)

    def close(self) -> None:
        """End it."""
        self._orders.close()
        self._process.wait(STOP_TIMEOUT)


def serve(descriptor: int, modules: Sequence[str]) -> None:
    """Be the server of forks: import the modules, then fork whenever that is asked for, until who asks is gone."""
    before = dict(os.environ)
    for module in modules:
        importlib.import_module(module)
    # As in a process of its own, where it is set by what is imported before anything reads it.
    set_by_imports = {name: value for name, value in os.environ.items() if before.get(name) != value}
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("something that is imported starts threads, so nothing can be forked")
    gc.collect()
    with socket.socket(fileno=descriptor) as orders:
        order = _until_forked(orders)
    if order is not None:
        _become(*order, set_by_imports)


def _until_forked(orders: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the order in the process that was forked for it, and None in the server at the end."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not orders:
                    selector.unregister(key.fd)
                    pid, reporter = running.pop(key.fd)
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with contextlib.suppress(BrokenPipeError):  # nobody asks any more
                        os.write(reporter, f"{status}\n".encode())
                    os.close(reporter)
                    os.close(key.fd)
                    continue
                order, descriptors, _, _ = socket.recv_fds(orders, MAX_ORDER, 3)
                if not order:
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGKILL)
                    return None
                pid = os.fork()
                if not pid:
                    return json.loads(order), descriptors
                stdout, stderr, reporter = descriptors
                os.close(stdout)
                os.close(stderr)
                os.write(reporter, f"{pid}\n".encode())
                ended = os.pidfd_open(pid)
                running[ended] = pid, reporter
                selector.register(ended, selectors.EVENT_READ)


def _become(order: dict[str, Any], descriptors: list[int], environment: dict[str, str]) -> None:
    """Be the process that was asked for."""
    os.setsid()
    stdout, stderr, _ = descriptors
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(environment | order["environment"])
    sys.argv = ["-c", *order["arguments"]]
    sys.path.remove(str(TESTS))
    importlib.import_module(order["module"]).main()
