"""Takes the progress that running functions report, over HTTP, at a URL that each attempt is given.

The worker listens, and not the server, since a container does not reach a server that listens on loopback: one address
for what runs on this host, one for containers. The path of an attempt cannot be guessed and ends with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import web

from homing.v1.invocation_pb2 import Progress
from homing_core.clock import now_us
from homing_core.http_connections import Connection, ConnectionLimit, note_busy
from homing_core.limits import MAX_PROGRESS_BODY, MAX_PROGRESS_TEXT
from homing_core.listening import listening
from homing_worker.control.gate import Gate

_log = structlog.get_logger(__name__)

PROGRESS_HEADER: Final = "X-Homing-Progress-Url"
"""Where an attempt is given its URL."""

_MIN_INTERVAL: Final = 1.0
"""Seconds between two reports that are passed on of one attempt: of those that come in between the last one counts."""
_BODY_TIMEOUT: Final = 10.0
"""Seconds that a body may take."""
_FIELDS: Final = frozenset({"percent", "text"})


class BadProgressError(Exception):
    """What a function reported is no progress."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


@dataclass(slots=True, eq=False)
class ProgressReporter:
    """The progress of one attempt."""

    url: str
    take: Callable[[Progress], None]
    last: Progress | None = None
    waiting: asyncio.TimerHandle | None = None
    """Passes on the last report when it is time."""
    not_before: float = 0.0


class ProgressEndpoint:
    """Serves the URLs of all attempts that run. Reports are kept back while no server is heard."""

    def __init__(self, gate: Gate, *, listen: str = "", url: str = "") -> None:
        """Prepare to serve.

        :param listen: ``HOST:PORT`` to listen on instead of the addresses that functions are thought to reach.
        :param url: What comes before the path in the URLs, where functions reach this worker otherwise.
        """
        self._gate = gate
        self._listen = listen
        self._url = url.rstrip("/")
        self._bases: dict[str, str] = {}
        self._reporters: dict[str, ProgressReporter] = {}
        self._loop = asyncio.get_running_loop()
        application = web.Application(client_max_size=MAX_PROGRESS_BODY, middlewares=[note_busy])
        application.router.add_post("/{path}", self._post)
        self._runner = web.AppRunner(application)
        self._listeners: list[tuple[asyncio.Server, ConnectionLimit]] = []

    async def open(self, hosts: Iterable[str]) -> None:
        """Listen.

        :param hosts: The addresses of this host as functions see it. Where one cannot be listened on, those functions
            are given no URL.
        :raises ListenError: The address that was set cannot be listened on.
        """
        await self._runner.setup()
        if self._listen:
            host, _, port = self._listen.rpartition(":")
            host = host.strip("[]")
            with listening("progress_listen", self._listen):
                taken = await self._bind(host, int(port))
            self._bases = {each: self._base(each if _is_any(host) else host, taken) for each in hosts}
            return
        for each in dict.fromkeys(hosts):
            try:
                self._bases[each] = self._base(each, await self._bind(each, 0))
            except OSError as error:
                _log.warning("progress_address_unusable", host=each, error=str(error))

    async def close(self) -> None:
        """Listen no more."""
        for listener, limit in self._listeners:
            listener.close()
            limit.close()
        await self._runner.cleanup()

    def begin(self, host: str, take: Callable[[Progress], None]) -> ProgressReporter | None:
        """Return where an attempt reports that reaches this host so; None where it cannot.

        :param take: Gets what it reports, once a second at the most.
        """
        base = self._bases.get(host)
        if base is None:
            return None
        path = secrets.token_urlsafe(16)
        reporter = self._reporters[path] = ProgressReporter(f"{base}/{path}", take)
        return reporter

    def end(self, reporter: ProgressReporter) -> None:
        """Take no more from an attempt that is over, and pass on what it reported last."""
        del self._reporters[reporter.url.rpartition("/")[2]]
        if reporter.waiting is not None:
            reporter.waiting.cancel()
            if reporter.last is not None:
                reporter.take(reporter.last)

    async def _post(self, request: web.Request) -> web.Response:
        reporter = self._reporters.get(request.match_info["path"])
        if reporter is None:
            return _refused(404, "path", "belongs to no attempt that runs")
        try:
            async with asyncio.timeout(_BODY_TIMEOUT):
                body = await request.read()
            reporter.last = read_progress(request.content_type, body, reporter.last)
        except web.HTTPRequestEntityTooLarge:
            return _refused(400, "body", f"must have at most {MAX_PROGRESS_BODY} bytes")
        except TimeoutError:
            return _refused(408, "body", f"must be sent within {_BODY_TIMEOUT:g} s")
        except BadProgressError as error:
            return _refused(400, error.field, error.message)
        if reporter.waiting is None:
            # Where enough time has passed this is soon.
            reporter.waiting = self._loop.call_at(reporter.not_before, self._pass_on, reporter)
        return web.Response(status=204)

    def _pass_on(self, reporter: ProgressReporter) -> None:
        reporter.not_before = self._loop.time() + _MIN_INTERVAL
        if not self._gate.open:
            reporter.waiting = self._loop.call_at(reporter.not_before, self._pass_on, reporter)
            return
        reporter.waiting = None
        if reporter.last is not None:
            reporter.take(reporter.last)

    async def _bind(self, host: str, port: int) -> int:
        """Listen on an address and return the port.

        Each container has an address of its own; commands, and what a proxy sends, share one.
        """
        server = self._runner.server
        assert server is not None, "it was set up"
        limit = ConnectionLimit()
        listener = await self._loop.create_server(lambda: Connection(limit, server), host or None, port)
        self._listeners.append((listener, limit))
        return int(listener.sockets[0].getsockname()[1])

    def _base(self, host: str, port: int) -> str:
        return self._url or f"http://{f'[{host}]' if ':' in host else host}:{port}"


def read_progress(content_type: str, body: bytes, before: Progress | None) -> Progress:
    """Read what a function reports; what it leaves out stays as it was.

    A JSON object, or a form, with percent and text, or the text alone as text/plain.

    :raises BadProgressError: It is not that, or is out of its bounds.
    """
    fields = _read_fields(content_type, body)
    progress = Progress()
    if before is not None:
        progress.CopyFrom(before)
    if "percent" in fields:
        progress.percent = _percent(fields["percent"])
    if "text" in fields:
        progress.text = _text(fields["text"])
    progress.time.FromMicroseconds(now_us())
    return progress


def _read_fields(content_type: str, body: bytes) -> Mapping[str, Any]:
    try:
        decoded = body.decode()
    except UnicodeDecodeError as error:
        raise BadProgressError("body", "must be UTF-8") from error
    # curl calls everything a form that it is not told more of.
    if content_type == "application/x-www-form-urlencoded" and not decoded.lstrip().startswith("{"):
        fields: Any = dict(parse_qsl(decoded, keep_blank_values=True))
    elif content_type == "text/plain":
        fields = {"text": decoded}
    else:
        try:
            fields = json.loads(decoded)
        except (ValueError, RecursionError) as error:
            raise BadProgressError("body", 'must be JSON, as in {"percent": 40, "text": "resizing"}') from error
    if not isinstance(fields, dict) or not fields:
        raise BadProgressError("body", "must have percent, text or both")
    for name in fields:
        if name not in _FIELDS:
            raise BadProgressError(ascii(name[:64]), "is no field of progress: those are percent and text")
    return fields


def _percent(value: object) -> float:
    try:
        percent = math.nan if isinstance(value, bool) or not isinstance(value, (int, float, str)) else float(value)
    except (ValueError, OverflowError):
        percent = math.nan
    if not 0 <= percent <= 100:
        raise BadProgressError("percent", f"must be a number from 0 to 100, is {ascii(value)[:64]}")
    return percent


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadProgressError("text", f"must be a string, is {ascii(value)[:64]}")
    if len(value) > MAX_PROGRESS_TEXT:
        raise BadProgressError("text", f"must have at most {MAX_PROGRESS_TEXT} characters, has {len(value)}")
    # Lone surrogates, which JSON can write, are in no UTF-8.
    return value.encode("utf-8", "replace").decode()


def _refused(status: int, field: str, message: str) -> web.Response:
    return web.json_response({"error": {"field": field, "message": message}}, status=status)


def _is_any(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
