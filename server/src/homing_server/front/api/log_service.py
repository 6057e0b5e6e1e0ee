"""homing.v1.LogService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from homing.v1 import log_service_pb2 as api
from homing_server.auth.visibility import Visibility
from homing_server.errors import Violation, invalid_request
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext
from homing_server.functions.catalog import Catalog
from homing_server.logs.tail import MAX_LAST_LINES, LogTails
from homing_server.rules.tokens import decode_token, encode_token
from homing_server.rules.validation import Checks
from homing_server.store.invocation_rows import timestamp
from homing_server.store.logs import LogMark, LogPlace

_KIND: Final = "function-log"
_HOLDS: Final[Mapping[str, type[int | str]]] = {
    "function": str,
    "a_us": int, "a_id": str, "a_n": int,
    "u_us": int, "u_id": str, "u_n": int,
    "t_us": int, "t_n": int,
}  # fmt: skip
"""A :class:`LogMark`, in its order."""


class LogService:
    """Serves what functions write."""

    def __init__(self, log_tails: LogTails, visibility: Visibility, catalog: Catalog) -> None:
        self._log_tails = log_tails
        self._visibility = visibility
        self._catalog = catalog

    async def TailLogs(
        self, request: api.TailLogsRequest, _context: CallContext
    ) -> AsyncIterator[api.TailLogsResponse]:
        """Stream log lines."""
        if not request.id:
            raise invalid_request([Violation(field="id", description="must not be empty")])
        await self._visibility.check_function_of(request.id, caller())
        async for response in self._log_tails.tail(request):
            yield response

    async def TailFunctionLogs(
        self, request: api.TailFunctionLogsRequest, _context: CallContext
    ) -> AsyncIterator[api.TailFunctionLogsResponse]:
        """Stream log lines of a function."""
        checks = Checks()
        since_us = 0
        if not request.function:
            checks.add("function", "must not be empty")
        if not 0 <= request.tail <= MAX_LAST_LINES:
            checks.add("tail", f"must be 0 to {MAX_LAST_LINES}, is {request.tail}")
        if request.HasField("since") and checks.time("since", request.since):
            since_us = request.since.ToMicroseconds()
        checks.done()
        caller().check_function(request.function)
        await self._catalog.get(request.function)
        mark = _mark_of(request.resume_token, request.function) if request.resume_token else None
        async for page in self._log_tails.tail_function(
            request.function, since_us=since_us, lines=request.tail, follow=request.follow, mark=mark
        ):
            for read, each in page:
                line = each.line
                yield api.TailFunctionLogsResponse(
                    resume_token=_token_of(read, request.function),
                    invocation_id=each.invocation_id,
                    time=timestamp(line.time_us),
                    stream=line.stream,
                    text=line.text,
                    shared=line.shared,
                )


def _token_of(mark: LogMark, function: str) -> str:
    values: tuple[Any, ...] = (function, *mark.after, *mark.until, mark.time_us, mark.number)
    return encode_token(_KIND, dict(zip(_HOLDS, values, strict=True)))


def _mark_of(token: str, function: str) -> LogMark:
    """Return from where to go on.

    :raises ApiError: INVALID_ARGUMENT.
    """
    held = decode_token(_KIND, token, field="resume_token", holds=_HOLDS)
    of, a_us, a_id, a_number, u_us, u_id, u_number, t_us, t_number = (held[name] for name in _HOLDS)
    if of != function:
        raise invalid_request([Violation(field="resume_token", description="is of another function")])
    return LogMark(LogPlace(a_us, a_id, a_number), LogPlace(u_us, u_id, u_number), t_us, t_number)
