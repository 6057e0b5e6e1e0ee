"""Others that run tasks over RabbitMQ, at the same work: each task makes the same HTTP call. See bench/peers/."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from homing_bench.cpu import CpuMeter
from homing_bench.figures import NOTHING, Figure, rate
from homing_bench.measures import ACCEPT, EXECUTE
from homing_bench.systems import CONCURRENCY, Function
from support.rabbitmq import RabbitNode

_FOLDER = Path(__file__).resolve().parents[1] / "peers"
_BIN = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin"
_CALLERS = 64
_POLL = 0.05
_PATIENCE = 120.0
_STOP = 20.0
_STARTED = 50
"""So many executions after its start a worker runs at its speed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """How to run one of the others."""

    name: str
    load: str
    """The program that hands tasks over; takes their number and that of callers."""
    worker: tuple[str, ...]


CELERY = Peer(
    name="Celery, RabbitMQ",
    load="celery_load.py",
    worker=(
        *("celery", "--app=celery_app", "worker", "--loglevel=WARNING"),
        # The fastest here of prefork (2, 8, 16), threads (8, 16, 32) and gevent (32).
        *("--pool=threads", "--concurrency=16"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
)
TASKIQ = Peer(
    name="taskiq, RabbitMQ",
    load="taskiq_load.py",
    worker=(
        *("taskiq", "worker", "--workers=1", f"--max-async-tasks={CONCURRENCY}", f"--max-prefetch={CONCURRENCY}"),
        *("--log-level=WARNING", "taskiq_app:broker"),
    ),
)


class PeerBench:
    """Measures one of the others: handing tasks over while nobody runs them, then running them."""

    def __init__(
        self, peer: Peer, node: RabbitNode, function: Function, tasks: int, tell: Callable[[Figure], None]
    ) -> None:
        self._peer = peer
        self._node = node
        self._function = function
        self._tasks = tasks
        self._tell = tell
        self._url = node.new_vhost()

    async def run(self) -> list[Figure]:
        """Measure."""
        figures = []
        for measure in (self._accept, self._execute):
            figure = await asyncio.to_thread(measure)
            self._tell(figure)
            figures.append(figure)
        return figures

    def _accept(self) -> Figure:
        meter = CpuMeter({"rabbitmq": [self._node.pid]})
        done = subprocess.run(
            [_BIN / "python", self._peer.load, str(self._tasks), str(_CALLERS)],
            cwd=_FOLDER,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        cpu = meter.per_operation(self._tasks)
        if done.returncode:
            return self._figure(ACCEPT, NOTHING, {}, f"failed: {done.stderr[-300:]}")
        tasks, seconds = done.stdout.split()
        waiting = self._wait_for_queued(self._tasks)
        missing = "" if waiting == self._tasks else f"{waiting} of {self._tasks} wait"
        return self._figure(ACCEPT, rate(int(tasks), float(seconds)), cpu, missing)

    def _execute(self) -> Figure:
        before = self._function.requests()
        with self._worker() as pid:
            polls = 0
            first: tuple[float, int] | None = None
            meter: CpuMeter | None = None
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                time.sleep(_POLL)
                polls += 1
                # What asks is itself counted.
                ended, now = self._function.requests() - before - polls, time.monotonic()
                if first is None and ended >= _STARTED:
                    first = now, ended
                    meter = CpuMeter({"worker": [pid], "rabbitmq": [self._node.pid], "function": self._function.pids()})
                if ended >= self._tasks:
                    break
            if first is None or meter is None or ended <= first[1]:
                return self._figure(EXECUTE, NOTHING, {}, f"{ended} of {self._tasks} ran")
            cpu = meter.per_operation(ended - first[1])
            value = rate(ended - first[1], now - first[0])
            missing = "" if ended == self._tasks else f"{ended} of {self._tasks} ran"
            left = self._wait_for_queued(0)
        return self._figure(EXECUTE, value, cpu, missing or (f"{left} are left" if left else ""))

    @contextlib.contextmanager
    def _worker(self) -> Iterator[int]:
        process = subprocess.Popen(
            [_BIN / self._peer.worker[0], *self._peer.worker[1:]],
            cwd=_FOLDER,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait_for_queued(self, wanted: int) -> int:
        """Wait until RabbitMQ counts so many messages, queued or in hand; it does so a little late."""
        deadline = time.monotonic() + _STOP
        while (waiting := self._waiting()) != wanted and time.monotonic() < deadline:
            time.sleep(_POLL)
        return waiting

    def _waiting(self) -> int:
        return sum(int(queue["messages"]) for queue in self._node.queues(self._url, "messages").values())

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "BENCH_BROKER": self._url,
            "BENCH_URL": self._function.url,
            "C_FORCE_ROOT": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _figure(self, measure: str, value: str, cpu: Mapping[str, float], missing: str) -> Figure:
        return Figure(measure=measure, system=self._peer.name, value=value, cpu=cpu, missing=missing)
