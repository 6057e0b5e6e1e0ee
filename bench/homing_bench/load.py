"""The load generator for single calls: h2load, which costs a tenth of what a client in Python does."""

from __future__ import annotations

import asyncio
import re
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

PAYLOAD = b"x" * 256


class LoadError(Exception):
    """Not every request was answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How a load went."""

    requests: int
    seconds: float
    latencies: list[float]
    """Seconds, one for each request."""


async def call_often(target: str, method: str, request: Message, *, requests: int, callers: int) -> Load:
    """Make the same unary gRPC call many times, each caller on a connection of its own, one call after the other.

    h2load sees HTTP, not gRPC: whether the calls succeeded must be asked of the server.

    :param method: As in ``/package.Service/Method``.
    :raises LoadError: An answer is missing.
    """
    body = request.SerializeToString()
    # The frame of gRPC: not compressed, the length, the message.
    framed = b"\0" + struct.pack(">I", len(body)) + body
    options = ("--max-concurrent-streams=1", "--header=content-type: application/grpc", "--header=te: trailers")
    return await _load(f"http://{target}{method}", options, framed, requests=requests, callers=callers, status=200)


async def post_often(url: str, body: bytes, *, requests: int, callers: int, status: int) -> Load:
    """Make the same POST over HTTP/1.1 many times, each caller on a connection of its own, one after the other.

    :param status: What each is answered.
    :raises LoadError: An answer is missing, or is another one.
    """
    options = ("--h1", "--header=content-type: text/plain")
    return await _load(url, options, body, requests=requests, callers=callers, status=status)


async def _load(url: str, options: Sequence[str], body: bytes, *, requests: int, callers: int, status: int) -> Load:
    with tempfile.TemporaryDirectory(prefix="homing-bench-") as name:
        folder = Path(name)
        (folder / "body").write_bytes(body)
        command = (
            *("h2load", f"--requests={requests}", f"--clients={callers}", "--threads=1", *options),
            *(f"--data={folder / 'body'}", f"--log-file={folder / 'log'}", url),
        )
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output = (await process.communicate())[0].decode()
        done = re.search(r"(\d+) succeeded", output)
        if process.returncode or done is None or int(done[1]) != requests:
            raise LoadError(f"h2load did not get {requests} answers:\n{output}")
        rows = [line.split("\t") for line in (folder / "log").read_text().splitlines()]
    others = {row[1] for row in rows} - {str(status)}
    if others:
        raise LoadError(f"h2load was answered {', '.join(sorted(others))} too")
    starts = [int(row[0]) for row in rows]
    latencies = [int(row[2]) for row in rows]
    ends = [start + latency for start, latency in zip(starts, latencies, strict=True)]
    return Load(
        requests=requests, seconds=(max(ends) - min(starts)) / 1e6, latencies=[latency / 1e6 for latency in latencies]
    )
