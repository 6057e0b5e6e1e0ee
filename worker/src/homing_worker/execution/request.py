"""The HTTP request that an attempt makes of a function: its target and its headers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from homing_core.header_names import NOT_PASSED_ON
from homing_worker import __version__
from homing_worker.execution.dispatch import Dispatch
from homing_worker.reporting.progress import PROGRESS_HEADER
from homing_worker.runtime.headers import Headers

USER_AGENT: Final = f"homing-worker/{__version__}"

_OWN: Final = "x-homing-"
"""Headers that begin so are homing's alone."""
_SAFE_IN_PATH: Final = "/:@!$&'()*+,;=~%"
_SAFE_IN_QUERY: Final = _SAFE_IN_PATH + "?"


class RequestHead:
    """Method, target and headers of the requests of one dispatch: each attempt adds what is its own."""

    def __init__(self, dispatch: Dispatch) -> None:
        http = dispatch.spec.http
        self.method = http.method or "POST"
        self.target = quote(http.path, safe=_SAFE_IN_PATH) if http.path else "/"
        if http.query:
            self.target += "?" + quote(http.query, safe=_SAFE_IN_QUERY)
        self._headers = _common_headers(dispatch)

    def headers(self, *, attempt: int, deadline: float, progress_url: str) -> Headers:
        """Return the headers of an attempt.

        :param attempt: Its number, lost ones counted.
        :param deadline: When it is given up, in seconds since the epoch.
        :param progress_url: Where the function may report progress; empty where it cannot.
        """
        deadline_time = datetime.fromtimestamp(deadline, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        headers = [*self._headers, ("X-Homing-Attempt", str(attempt)), ("X-Homing-Deadline", deadline_time)]
        if progress_url:
            headers.append((PROGRESS_HEADER, progress_url))
        return headers


def _common_headers(dispatch: Dispatch) -> Headers:
    """Return homing's own headers and those of the invocation, which do not replace them."""
    own = [
        ("Content-Type", dispatch.spec.payload.content_type or "application/octet-stream"),
        ("X-Call-Id", dispatch.spec.call_id or dispatch.invocation_id),
        ("X-Start-Time", str(dispatch.create_us * 1000)),
    ]
    if dispatch.spec.call_id:
        own.append(("X-Homing-Invocation-Id", dispatch.invocation_id))
    if dispatch.traceparent:
        own.append(("traceparent", dispatch.traceparent))
    replaced = {name.lower() for name, _ in own}
    spelled: dict[str, str] = {}
    passed_on = []
    for header in dispatch.spec.http.headers:
        name = header.name.lower()
        if name not in NOT_PASSED_ON and name not in replaced and not name.startswith(_OWN):
            # aiohttp takes two spellings of one name for two values of which the last one holds.
            passed_on.append((spelled.setdefault(name, header.name), header.value))
    if "user-agent" not in spelled:
        own.append(("User-Agent", USER_AGENT))
    return [*passed_on, *own]
