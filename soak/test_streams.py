"""Answers without end, and of a gigabyte, through one server and one worker: neither grows."""

from __future__ import annotations

import itertools
import logging
import re
import time
from pathlib import Path

import pytest

from homing import Client
from homing_core.limits import KIB, MIB
from support.processes import Cluster, HomingProcess
from support.source import Exchange, running_source

MAX_PEAK = 150 * MIB
GIGABYTE = 1024 * MIB
EVENTS = 36_000
PAUSE = 0.01
"""As many events as an hour has at ten a second, ten times as fast."""

_log = logging.getLogger(__name__)


def watch_peaks(processes: list[HomingProcess]) -> None:
    for process in processes:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")


def check_peaks(processes: list[HomingProcess]) -> None:
    for process in processes:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * KIB
        _log.info("%s took %d MiB at the most", process.name, peak // MIB)
        assert peak < MAX_PEAK


@pytest.mark.timeout(0)
def test_a_gigabyte_and_an_hour_of_events_pass_with_little_memory(cluster: Cluster) -> None:
    processes: list[HomingProcess] = [cluster.start_server(), cluster.start_worker()]
    block = bytes(MIB)

    def gigabyte(call: Exchange) -> None:
        call.head(f"Content-Length: {GIGABYTE}")
        for _ in range(GIGABYTE // len(block)):
            call.write(block)

    def events(call: Exchange) -> None:
        call.chunked("text/event-stream")
        for number in range(EVENTS):
            call.chunk(b"data: %d\n\n" % number)
            call.times.clear()
            time.sleep(PAUSE)
        call.end()

    with running_source() as source, Client(cluster.target, timeout=60) as client:
        source.answers |= {"/gigabyte": gigabyte, "/events": events}
        client.functions.deploy(name="source", url=source.url, attempt_timeout=3600)
        watch_peaks(processes)
        began = time.monotonic()
        with client.invoke_stream("source", path="/gigabyte") as stream:
            assert sum(map(len, stream)) == GIGABYTE
        _log.info("a gigabyte in %.1f s", time.monotonic() - began)
        check_peaks(processes)
        watch_peaks(processes)
        with client.invoke_stream("source", path="/events") as stream:
            read = b"".join(itertools.islice(stream, EVENTS))
            read += b"".join(stream)
        assert read.count(b"data: ") == EVENTS
        check_peaks(processes)
