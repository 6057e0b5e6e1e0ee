"""Measures everything in one run, prints the table and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from homing_bench import fairness, machine, million, schedules
from homing_bench.figures import Figure, table
from homing_bench.homing import HomingBench
from homing_bench.measures import FULL, QUICK, Sizes
from homing_bench.peers import CELERY, TASKIQ, PeerBench
from homing_bench.systems import DevSystem, Function, RabbitSystem, System, function
from support.rabbitmq import RabbitNode

_ROOT = Path(__file__).resolve().parents[2]
_WHICH = ("homing", "dev", "celery", "taskiq")


def main() -> int:
    """Run; return 1 where a row does not count."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer operations, in about a minute: rough figures")
    parser.add_argument("--output", type=Path, default=_ROOT / "bench" / "report.md", help="where the report goes")
    parser.add_argument("--only", action="append", choices=_WHICH, help="measure this one; may be given several times")
    parser.add_argument("--million", action="store_true", help="measure lists and recording with so many records alone")
    parser.add_argument("--schedules", action="store_true", help="measure how late scheduled invocations start alone")
    parser.add_argument("--fairness", action="store_true", help="measure what a receiver that hangs costs others alone")
    options = parser.parse_args()
    if options.million:
        return _alone("a million records", million.measure, 1_000_000, options.output)
    if options.schedules:
        return _alone("schedules", schedules.measure, 100_000, options.output)
    if options.fairness:
        return _alone("fairness", fairness.measure, 2000, options.output)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homing-bench-")))
        node = stack.enter_context(RabbitNode(folder / "rabbitmq"))
        facts = machine.describe(node, _ROOT / ".venv-bench" / "bin" / "python")
        nop = stack.enter_context(function())
        sizes = QUICK if options.quick else FULL
        figures = uvloop.run(_measure(folder, node, nop, sizes, options.only or _WHICH))
    shown = table(figures)
    report = "\n".join(
        ["# Benchmark", "", *(f"* {name}: {value}" for name, value in facts), "", shown, "", _LEGEND, ""]
    )
    options.output.write_text(report)
    print(f"\n{report}\nwritten to {options.output}")
    return int(any(figure.missing for figure in figures))


def _alone(
    title: str,
    measure: Callable[[Path, int, Callable[[str], None]], Coroutine[Any, Any, list[str]]],
    count: int,
    output: Path,
) -> int:
    facts = machine.describe_host()
    with tempfile.TemporaryDirectory(prefix="homing-bench-") as folder:
        lines = asyncio.run(measure(Path(folder), count, lambda line: print(line, flush=True)))
    report = "\n".join([f"# Benchmark: {title}", "", *(f"* {name}: {value}" for name, value in facts), "", *lines, ""])
    output.write_text(report)
    print(f"\n{report}\nwritten to {output}")
    return 0


async def _measure(folder: Path, node: RabbitNode, nop: Function, sizes: Sizes, which: Sequence[str]) -> list[Figure]:
    figures: list[Figure] = []
    if "homing" in which:
        figures += await _measure_homing(RabbitSystem(node, folder / "rabbit", nop), sizes)
    if "dev" in which:
        figures += await _measure_homing(DevSystem(folder / "dev", nop), sizes)
    for name, peer, tasks in (("celery", CELERY, sizes.celery), ("taskiq", TASKIQ, sizes.taskiq)):
        if name in which:
            figures += await PeerBench(peer, node, nop, tasks, _tell).run()
    return figures


async def _measure_homing(system: System, sizes: Sizes) -> list[Figure]:
    try:
        return await HomingBench(system, sizes, _tell).run()
    finally:
        await asyncio.to_thread(system.close)


def _tell(figure: Figure) -> None:
    print(f"{figure.system}: {figure.measure}: {figure.value} {figure.missing and f'NO: {figure.missing}'}", flush=True)


_LEGEND = """\
µs: processor time an operation, of the server, of the worker, of RabbitMQ, of the function's container and of the load
generator, the benchmark's own polling included. `homing dev` is one process, shown as the server. Function: an nginx in
a container that answers 200, at most 32 calls at a time; payload 256 bytes. Executions are measured from the first
recorded end to the last, with the whole history of each in the store; Celery and taskiq keep neither results nor
history. A row counts only when every invocation was accepted, ended in success and was recorded."""


if __name__ == "__main__":
    sys.exit(main())
