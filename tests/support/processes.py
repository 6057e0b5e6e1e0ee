"""Servers and workers as real processes, for tests that kill and restart them."""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from homing_core.settings import LOOPBACK
from support.confidential import betrayed
from support.fork_server import Forked, ForkServer

if TYPE_CHECKING:
    from homing import Client

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
LOG_TAIL = 60
SECRET_KEY = base64.b64encode(b"the servers of one store share it"[:32]).decode()

LogLine = dict[str, Any]

default_log_level = "info"
"""The tests set it to debug: whatever is logged there is looked through for what is confidential."""


class ProcessError(Exception):
    """A process did not do what it should; carries the end of its log."""


_starting = threading.Lock()


@functools.cache
def _fork_server() -> ForkServer:
    made = ForkServer("homing_server.app", "homing_worker.app", "homing_cli.main", "homing_cli.dev_host")
    atexit.register(made.close)
    return made


def fork_server() -> ForkServer:
    """Return what servers and workers are forked from; it is started when it is first needed."""
    with _starting:
        return _fork_server()


class HomingProcess:
    """A server or a worker that runs as a process of its own and may run again after it ended."""

    def __init__(self, name: str, module: str, environment: dict[str, str], *arguments: str) -> None:
        self.name = name
        self._arguments = arguments
        self.environment = environment
        self.python = sys.executable
        """What runs it; another one has homing from elsewhere."""
        self.lines: list[LogLine] = []
        self.betrayals: list[LogLine] = []
        """The log lines that show what is confidential."""
        self.module = module
        """What its `main` is in; another one may change something before it runs that."""
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | Forked | None = None
        self._reader: threading.Thread | None = None
        self._starts_at = 0

    @property
    def pid(self) -> int:
        """The process id of the present run, or of the last one."""
        if self._process is None:
            raise ProcessError(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it and return at once."""
        if self.running:
            raise ProcessError(f"{self.name} runs already")
        # Settings of the machine that runs the tests must not reach what is tested.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HOMING_")}
        self._starts_at = len(self.lines)
        environment = inherited | self.environment
        if self.python == sys.executable and "PYTHONPATH" not in self.environment:
            self._process = fork_server().fork(self.module, self._arguments, environment)
        else:
            self._process = subprocess.Popen(
                [self.python, "-c", f"from {self.module} import main; main()", *self._arguments],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                # Ctrl-C in the terminal is for the tests; they stop what they started.
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def start(self, *, timeout: float = START_TIMEOUT) -> LogLine:
        """Start it and return its log line that says `ready`."""
        self.launch()
        return self.wait_until_ready(timeout=timeout)

    def wait_until_ready(self, *, timeout: float = START_TIMEOUT) -> LogLine:
        """Return the present run's log line that says `ready`."""
        return self.wait_for_log("ready", timeout=timeout)

    def wait_for_log(
        self,
        event: str,
        *,
        timeout: float = START_TIMEOUT,
        match: Callable[[LogLine], bool] = lambda _: True,
        after: int | None = None,
        **fields: object,
    ) -> LogLine:
        """Return the first log line with this event and these fields, of the present run or after this many lines."""
        start = self._starts_at if after is None else after
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines[start:]:
                    wanted = line.get("event") == event and all(line.get(key) == value for key, value in fields.items())
                    if wanted and match(line):
                        return line
                ended = self._reader is None or not self._reader.is_alive()
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    why = "it ended" if ended else f"{timeout:g} s passed"
                    raise ProcessError(f"{self.name}: no log line {event!r} {fields or ''} before {why}\n{self.tail()}")
                # Woken by each line and by the end; the bound makes sure that the end of the reader is seen.
                self._changed.wait(min(left, 1.0))

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self._end(signal.SIGKILL, STOP_TIMEOUT)

    def terminate(self, *, timeout: float = STOP_TIMEOUT) -> int:
        """Ask it to stop with SIGTERM, wait until it is gone and return its exit status."""
        return self._end(signal.SIGTERM, timeout)

    def wait(self, *, timeout: float = STOP_TIMEOUT) -> int:
        """Wait until it has ended by itself and return its exit status."""
        if self._process is None or self._reader is None:
            raise ProcessError(f"{self.name} was never started")
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} still runs after {timeout:g} s\n{self.tail()}") from None
        self._reader.join(STOP_TIMEOUT)
        if self.betrayals:
            told, self.betrayals = self.betrayals[0], []
            raise ProcessError(f"{self.name} logged what is confidential: {told}")
        return status

    def restart(self, *, timeout: float = START_TIMEOUT) -> LogLine:
        """Start it again, with a SIGTERM before where it still runs; with the same data and addresses."""
        if self.running:
            self.terminate()
        return self.start(timeout=timeout)

    def suspend(self) -> None:
        """Freeze it with SIGSTOP, as a machine that hangs does; return once none of its threads goes on."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_TIMEOUT
        while not _is_frozen(self.pid):
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} is not frozen after {STOP_TIMEOUT:g} s")
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        os.kill(self.pid, signal.SIGCONT)

    def tail(self, lines: int = LOG_TAIL) -> str:
        """Return the end of its log."""
        # At their debug level these tell of each frame, which is for those who look for secrets, and not for people.
        told = [line for line in self.lines if not str(line.get("logger", "")).startswith(("pika", "grpc."))]
        shown = "\n".join(json.dumps(line, default=str) for line in told[-lines:])
        return f"--- log of {self.name} ---\n{shown}\n---"

    def _end(self, number: signal.Signals, timeout: float) -> int:
        if self.running:
            # It may end at any moment, and its end be known a moment later.
            with contextlib.suppress(ProcessLookupError):
                self.resume()
                os.kill(self.pid, number)
        return self.wait(timeout=timeout)

    def _read(self, process: subprocess.Popen[str] | Forked) -> None:
        if process.stderr is None:
            raise ProcessError(f"{self.name} has no standard error")
        with process.stderr as stream:
            for raw in stream:
                try:
                    line = json.loads(raw)
                except ValueError:
                    # An interpreter that dies, a library that prints: worth seeing, never worth losing.
                    line = {"event": "", "text": raw.rstrip("\n")}
                with self._changed:
                    self.lines.append(line if isinstance(line, dict) else {"event": "", "text": raw})
                    if betrayed(raw):
                        self.betrayals.append(self.lines[-1])
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def _is_frozen(pid: int) -> bool:
    """Tell whether all threads of a process are stopped; the signal reaches a busy one a moment later."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


class Server(HomingProcess):
    """A homing-server. Its first start picks free ports, later ones take the same."""

    def __init__(
        self, name: str, environment: dict[str, str], module: str = "homing_server.app", *arguments: str
    ) -> None:
        free = {"HOMING_GRPC_LISTEN": "127.0.0.1:0", "HOMING_HTTP_LISTEN": "127.0.0.1:0"}
        super().__init__(name, module, free | environment, *arguments)
        self.target = ""
        self.http = ""

    def wait_until_ready(self, *, timeout: float = START_TIMEOUT) -> LogLine:
        """Return the line that says `ready`, and note the addresses in it."""
        line = super().wait_until_ready(timeout=timeout)
        self.target, self.http = str(line["grpc"]), str(line["http"])
        self.environment |= {"HOMING_GRPC_LISTEN": self.target, "HOMING_HTTP_LISTEN": self.http}
        return line


class Dev(Server):
    """A homing dev: server, worker and broker in one process."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        settings = {"HOMING_DATA_DIR": str(folder), "HOMING_RUNTIME": "process", "HOMING_LOG_LEVEL": default_log_level}
        super().__init__("dev", settings | environment, "homing_cli.main", "dev", *arguments)

    def wait_until_ready(self, *, timeout: float = START_TIMEOUT) -> LogLine:
        """Return the server's line that says `ready`, once the worker is ready too."""
        line = self.wait_for_log("ready", timeout=timeout, match=lambda line: "grpc" in line)
        self.target, self.http = str(line["grpc"]), str(line["http"])
        self.environment |= {"HOMING_GRPC_LISTEN": self.target, "HOMING_HTTP_LISTEN": self.http}
        self.wait_for_log("ready", timeout=timeout, match=lambda line: "worker" in line)
        return line


class Worker(HomingProcess):
    """A homing-worker."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        super().__init__(name, "homing_worker.app", environment)
        self.worker = ""

    def wait_until_ready(self, *, timeout: float = START_TIMEOUT) -> LogLine:
        """Return the line that says `ready`, and note the worker's own name in it."""
        line = super().wait_until_ready(timeout=timeout)
        self.worker = str(line["worker"])
        return line


class Cluster:
    """A store, one server or more, and workers, on one broker."""

    def __init__(self, broker_url: str, folder: Path, *, runtime: str = "process", log_level: str = "") -> None:
        self.broker_url = broker_url
        self.folder = folder
        self.store_url = f"sqlite:///{folder / 'homing.sqlite3'}"
        self.servers: list[Server] = []
        self.workers: list[Worker] = []
        self._runtime = runtime
        self._log_level = log_level or default_log_level
        self._clients = contextlib.ExitStack()

    @property
    def server(self) -> Server:
        """The first server."""
        return self.servers[0]

    @property
    def worker(self) -> Worker:
        """The first worker."""
        return self.workers[0]

    @property
    def target(self) -> str:
        """Where the first server answers gRPC: `host:port`."""
        return self.server.target

    def new_server(self, **environment: str) -> Server:
        """Make a server that is not started yet; settings are given by their full names, HOMING_…"""
        name = f"server-{len(self.servers) + 1}"
        settings = {
            "HOMING_BROKER_URL": self.broker_url,
            "HOMING_STORE_URL": self.store_url,
            "HOMING_DATA_DIR": str(self.folder / name),
            "HOMING_LOG_LEVEL": self._log_level,
            "HOMING_CONSERVATION_INTERVAL": "0.5",
            # Where the tests' own receivers are.
            "HOMING_CALLBACK_NETWORKS": LOOPBACK,
            "HOMING_FUNCTION_NETWORKS": LOOPBACK,
            "HOMING_SECRET_KEY": SECRET_KEY,
        }
        server = Server(name, settings | environment)
        self.servers.append(server)
        return server

    def new_worker(self, **environment: str) -> Worker:
        """Make a worker that is not started yet; settings are given by their full names, HOMING_…"""
        name = f"worker-{len(self.workers) + 1}"
        settings = {
            "HOMING_BROKER_URL": self.broker_url,
            "HOMING_DATA_DIR": str(self.folder / name),
            # Commands of tests write below a folder that is the tests' own.
            "HOMING_COMMAND_USERS": "",
            "HOMING_RUNTIME": self._runtime,
            "HOMING_LOG_LEVEL": self._log_level,
            # Less than it is waited for: a test may have taken its broker away for good.
            "HOMING_DRAIN_TIMEOUT": "20",
            "HOMING_STOP_GRACE": "1",
            "HOMING_CALLBACK_NETWORKS": LOOPBACK,
            "HOMING_FUNCTION_NETWORKS": LOOPBACK,
        }
        worker = Worker(name, settings | environment)
        self.workers.append(worker)
        return worker

    def start_server(self, **environment: str) -> Server:
        """Make a server and start it."""
        server = self.new_server(**environment)
        server.start()
        return server

    def start_worker(self, **environment: str) -> Worker:
        """Make a worker and start it."""
        worker = self.new_worker(**environment)
        worker.start()
        return worker

    def client(self, **options: Any) -> Client:
        """Return a client of the first server; it is closed at the end of the test."""
        # Tests of the server by itself need no SDK.
        from homing import Client

        return self._clients.enter_context(Client(self.target, **options))

    def logs(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(process.tail() for process in (*self.servers, *self.workers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients and stop all processes; what does not stop in time is killed and told of."""
        failures: list[str] = []
        with contextlib.suppress(Exception):  # the server behind a client may be gone
            self._clients.close()
        # Workers first: they hand back their work while the servers still live.
        for process in (*self.workers, *self.servers):
            if not process.running:
                continue
            try:
                process.terminate()
            except ProcessError as error:
                failures.append(str(error))
                process.kill()
        if failures:
            raise ProcessError("\n".join(failures))
