"""Answers that are passed on as they come: to the server where the caller waits, and by it to the caller.

The server says first whether it takes the answer (100 Continue), so that nothing is lost where it does not: the answer
is kept whole then. Whoever passes bytes on waits until they are taken, so nothing piles up here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Final

import aiohttp
import structlog
from yarl import URL

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Header, Payload
from homing_core import limits
from homing_core.retry import RetryAdvice
from homing_core.wire.v1 import StreamHead
from homing_worker.runtime.headers import Headers

_log = structlog.get_logger(__name__)

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=None)
"""How long it takes is up to the function, and to whoever reads its answer."""
_ACCEPT_SECONDS: Final = 5.0
"""So long the server may take to say that it takes an answer."""


class AnswerStreams:
    """Opens streams to servers."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """Prepare to stream.

        :param tls: How servers are checked that are reached by https://; None for the certificates of the system.
        """
        self._session = aiohttp.ClientSession(
            # Each has a connection of its own: there is no bound for how many last, and one that idled may be gone.
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=True if tls is None else tls),
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()

    def stream(
        self,
        url: str,
        *,
        final: Callable[[int, RetryAdvice], bool],
        opened: Callable[[], None],
        gone: Callable[[], None],
    ) -> AnswerStream:
        """Return the stream of one attempt, which is opened once there is something to pass on.

        :param url: Where the server takes it.
        :param final: Tells of a status code, and what is said with it, whether no other attempt follows.
        :param opened: Called once bytes are passed on.
        :param gone: Called where nobody takes them any more: it cancels the attempt.
        """
        return AnswerStream(self._session, url, final=final, opened=opened, gone=gone)


class AnswerStream:
    """The answer of one attempt on its way to the caller; the beginning of it is kept for the record."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        final: Callable[[int, RetryAdvice], bool],
        opened: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        self.takes: Final = final
        """Tells of a status code, and what is said with it, whether such an answer may be passed on."""
        self.opened = False
        """Whether bytes are passed on, or were."""
        self._session = session
        self._url = url
        self._on_open = opened
        self._on_gone = gone
        self._accepted = asyncio.get_running_loop().create_future()
        self._parts: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._sending: asyncio.Task[int] | None = None
        self._head = StreamHead()
        self._kept = bytearray()
        self._size = 0
        self._whole = False
        self._over = False

    @property
    def result(self) -> api.Result:
        """What is kept of the answer, as far as it came."""
        head = self._head
        return api.Result(
            status_code=head.status_code,
            headers=head.headers,
            payload=Payload(content_type=head.content_type, data=bytes(self._kept)),
            cut=not self._whole or self._size > len(self._kept),
            streamed_size=self._size,
        )

    async def open(self, status_code: int, headers: Headers, content_type: str, *, length: int | None = None) -> bool:
        """Begin to pass an answer on; return whether that can be: otherwise it is to be kept whole.

        :param length: How many bytes its body will have; None where that is not known.
        """
        self._head = StreamHead(
            status_code=status_code,
            headers=[Header(name=name, value=value) for name, value in headers],
            content_type=content_type,
            content_length=length,
        )
        self._sending = asyncio.ensure_future(self._send())
        await asyncio.wait(
            {self._sending, self._accepted}, timeout=_ACCEPT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if not self._accepted.done():
            self._give_up(self._sending)
            return False
        self.opened = True
        self._sending.add_done_callback(self._on_sent)
        self._on_open()
        return True

    async def write(self, data: bytes) -> None:
        """Pass bytes on, once there is room for them.

        Where nobody takes them any more this waits for ever: the attempt is cancelled.
        """
        self._size += len(data)
        room = limits.MAX_INLINE_RESULT - len(self._kept)
        if room > 0:
            self._kept += data[:room]
        if data:
            await self._parts.put(data)

    async def finish(self) -> None:
        """End the answer: all of it was passed on. Waits for ever, as :meth:`write` does."""
        await self._parts.put(b"")
        assert self._sending is not None, "it is open"
        await asyncio.wait({self._sending})
        if self._failure(self._sending):
            await asyncio.get_running_loop().create_future()
        self._whole = True

    def close(self) -> None:
        """Break off what was not passed on to its end: the caller must not take it for the whole answer."""
        self._over = True
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self) -> int:
        """Pass on what is given, and return the status with which the server has answered."""
        async with self._session.post(
            URL(self._url, encoded=True), data=self._body(), expect100=True, allow_redirects=False
        ) as response:
            return response.status

    async def _body(self) -> AsyncIterator[bytes]:
        """Yield what the server is sent; it is not asked for before the server has said that it takes it."""
        self._accepted.set_result(None)
        head = self._head.SerializeToString()
        yield len(head).to_bytes(4) + head
        while part := await self._parts.get():
            yield part

    def _give_up(self, sending: asyncio.Task[int]) -> None:
        why = self._failure(sending) if sending.done() else "it does not say that it takes it"
        _log.warning("answer_not_streamed", error=why)
        sending.cancel()
        self._over = True

    def _on_sent(self, sending: asyncio.Task[int]) -> None:
        if not self._over and self._failure(sending):
            self._on_gone()

    @staticmethod
    def _failure(sending: asyncio.Task[int]) -> str:
        """Return why the server has not taken the answer, without its URL, which is signed; empty where it has."""
        if sending.cancelled():
            return "it was broken off"
        error = sending.exception()
        if error is not None:
            return f"the connection to the server's data port failed ({type(error).__name__})"
        status = sending.result()
        return "" if status == HTTPStatus.NO_CONTENT else f"the server's data port answered with status {status}"
