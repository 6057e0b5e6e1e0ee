"""Carries what a call says of its progress to homing: the newest, one request at a time, in the background."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Final
from urllib.parse import urlsplit

_log = logging.getLogger(__name__)

_TIMEOUT: Final = 5.0
"""Seconds that a request may take."""
_LAST_TIMEOUT: Final = 1.0
"""Seconds that the answer of a function waits for its last report."""


class Progress:
    """Reports the progress of one call. Belongs to the event loop; :meth:`report` may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Prepare to report.

        :param url: Where to; empty where nobody wants to know.
        """
        self._url = url if urlsplit(url).scheme in {"http", "https"} else ""
        self._loop = asyncio.get_running_loop()
        self._newest: dict[str, Any] = {}
        self._sending: asyncio.Task[None] | None = None

    def report(self, percent: float | None, text: str | None) -> None:
        """Report soon; what is None stays as it was."""
        said = {"percent": percent, "text": text}
        if self._url:
            self._loop.call_soon_threadsafe(self._take, {name: it for name, it in said.items() if it is not None})

    async def finish(self) -> None:
        """Wait for a while until the last report has arrived: after the answer it would come too late."""
        await asyncio.sleep(0)  # what a thread has said last is taken first
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=_LAST_TIMEOUT)

    def _take(self, said: dict[str, Any]) -> None:
        self._newest |= said
        if self._sending is None:
            self._sending = self._loop.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._newest:
                said, self._newest = self._newest, {}
                await asyncio.to_thread(self._post, json.dumps(said).encode())
        except OSError as error:
            _log.debug("progress was not reported: %s", error)
        finally:
            self._sending = None

    def _post(self, body: bytes) -> None:
        import urllib.request  # noqa: PLC0415 most calls report nothing, and it would make each start longer

        request = urllib.request.Request(  # noqa: S310 its scheme was checked
            self._url, data=body, headers={"Content-Type": "application/json"}
        )
        # Not by a proxy of the environment: it leads to the worker.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_TIMEOUT) as answer:
            answer.read()
