"""What the figures were measured on: the machine and the versions of all that took part."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from support.rabbitmq import RabbitNode

_LIBRARIES = ("grpcio", "protobuf", "pika", "aiohttp", "sqlalchemy", "uvloop", "tenacity", "aiodocker")
_PEERS = ("celery", "kombu", "amqp", "taskiq", "taskiq-aio-pika", "aio-pika", "aiormq", "aiohttp", "uvloop")


def describe_host() -> list[tuple[str, str]]:
    """Return what is worth knowing of the machine and of homing itself, by name."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    processor = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ": unknown"
    )
    load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    return [
        ("date", datetime.now(UTC).isoformat(sep=" ", timespec="minutes")),
        ("homing", _output(["git", "describe", "--always", "--dirty"])),
        ("processor", f"{processor.split(':', 1)[1].strip()}, {os.cpu_count()} cores"),
        ("memory", f"{int(memory.split()[1]) / 2**20:.1f} GiB"),
        ("load before the run", f"{load} (of 1, 5 and 15 minutes; what else ran takes from all figures)"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("Python", f"{sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}"),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)),
    ]


def describe(node: RabbitNode, peers_python: Path) -> list[tuple[str, str]]:
    """Return what is worth knowing of all that takes part, by name."""
    status = json.loads(node.ctl("status", "--formatter", "json"))
    script = f"import json; from importlib.metadata import version; print(json.dumps([version(n) for n in {_PEERS!r}]))"
    peers = json.loads(_output([str(peers_python), "-c", script]))
    return [
        *describe_host(),
        ("RabbitMQ", f"{status['rabbitmq_version']}, {status['erlang_version'].split(']')[0]}]"),
        ("Docker", _output(["docker", "version", "--format", "{{.Server.Version}}"])),
        ("others", ", ".join(f"{name} {number}" for name, number in zip(_PEERS, peers, strict=True))),
    ]


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.strip() or "unknown"
