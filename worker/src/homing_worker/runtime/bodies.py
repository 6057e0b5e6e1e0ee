"""Bodies that are too large for messages: read from and written to the server's data port, by signed URLs."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import structlog
from google.protobuf.message import DecodeError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_before_delay, wait_random_exponential
from yarl import URL

from homing.v1.payload_pb2 import Blob
from homing_core.limits import MAX_PART
from homing_core.reasons import FailureReason
from homing_worker.runtime.base import CallFailedError
from homing_worker.runtime.data_ports import DataPorts
from homing_worker.runtime.spool import Spool, SpoolError, Spools

RETRY_TIMEOUT: Final = 60.0
"""For so many seconds requests to a server that is away are retried, unless the attempt ends before."""

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)


T = TypeVar("T")
_log = structlog.get_logger(__name__)


class _UnavailableError(Exception):
    """The server cannot be reached, or says that it cannot serve now."""


class _RefusedError(Exception):
    """The server does not do it, and asking again does not help."""


class Bodies:
    """Moves bodies between the server and files of this worker."""

    def __init__(
        self,
        folder: Path,
        *,
        ports: DataPorts | None = None,
        tls: ssl.SSLContext | None = None,
        retry_timeout: float = RETRY_TIMEOUT,
    ) -> None:
        """Prepare to move bodies.

        :param folder: Where the files are; it is made when it is first needed.
        :param ports: Knows where servers are now; without it bodies are where their URLs say.
        :param tls: How servers are checked that are reached by https://; None for the certificates of the system.
        :param retry_timeout: For how many seconds requests to a server that is away are retried.
        """
        self._folder = folder
        self._ports = ports or DataPorts()
        self._unreachable = False
        """Whether the last request failed since no server was reached: that is logged once."""
        self._retry_timeout = retry_timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=True if tls is None else tls),
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()

    def spools(self) -> Spools:
        """Return the place for the bodies of one attempt."""
        return Spools(self._folder)

    async def fetch(self, url: str, blob: Blob, spools: Spools) -> Spool:
        """Read a body.

        :raises CallFailedError: It could not be read.
        """
        try:
            return await self._anywhere(url, lambda place: self._get(place, blob, spools))
        except (_UnavailableError, _RefusedError, SpoolError) as error:
            raise CallFailedError(
                FailureReason.PAYLOAD_UNAVAILABLE, f"the stored body could not be read: {error}"
            ) from error

    async def store(self, url: str, spool: Spool) -> Blob:
        """Write a body and return what refers to it.

        :raises CallFailedError: It could not be written.
        """
        try:
            return await self._anywhere(url, lambda place: self._put(place, spool))
        except (_UnavailableError, _RefusedError, SpoolError) as error:
            raise CallFailedError(
                FailureReason.RESULT_NOT_STORED, f"the answer of {len(spool)} bytes could not be stored: {error}"
            ) from error

    async def _anywhere(self, url: str, request: Callable[[str], Awaitable[T]]) -> T:
        """Make a request where a server is that can serve it: at one place after the other, while they are away."""
        places = itertools.chain.from_iterable(self._ports.places(url) for _ in itertools.count())

        async def attempt() -> T:
            try:
                result = await request(next(places))
            except _UnavailableError as error:
                if not self._unreachable:
                    self._unreachable = True
                    _log.warning("data_port_unavailable", error=str(error), retried_for=self._retry_timeout)
                raise
            self._unreachable = False
            return result

        retrying = AsyncRetrying(
            stop=stop_before_delay(self._retry_timeout),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            retry=retry_if_exception_type(_UnavailableError),
            reraise=True,
        )
        return await retrying(attempt)

    async def _get(self, url: str, blob: Blob, spools: Spools) -> Spool:
        spool = await spools.open()
        try:
            async with self._session.get(URL(url, encoded=True), allow_redirects=False) as response:
                _check(response)
                async for part in response.content.iter_chunked(MAX_PART):
                    await spool.write(part)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _UnavailableError(_explained(error)) from error
        if (len(spool), spool.sha256) != (blob.size, blob.sha256):
            raise _UnavailableError("what came is not the body that was stored")
        return spool

    async def _put(self, url: str, spool: Spool) -> Blob:
        headers = {"Content-Length": str(len(spool)), "Content-Type": "application/octet-stream"}
        try:
            async with self._session.put(
                URL(url, encoded=True), data=spool.parts(), headers=headers, allow_redirects=False
            ) as response:
                _check(response)
                blob = Blob.FromString(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _UnavailableError(_explained(error)) from error
        except DecodeError as error:
            raise _RefusedError("the server's answer cannot be read") from error
        if (blob.size, blob.sha256) != (len(spool), spool.sha256):
            raise _UnavailableError("what the server stored is not the body")
        return blob


def _check(response: aiohttp.ClientResponse) -> None:
    match response.status:
        case 200:
            return
        case 403:
            raise _RefusedError("the server does not allow it: the signed URL has expired, or is another server's")
        case 404:
            raise _RefusedError("the server does not have it")
        case 507:
            raise _UnavailableError("the server's disk is full")
        case status if status >= 500:
            raise _UnavailableError(f"the server answered with status {status}")
        case status:
            raise _RefusedError(f"the server answered with status {status}")


def _explained(error: BaseException) -> str:
    """Return what went wrong, without the URL: it is signed."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of the server's data port is not to be trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to the server's data port at {error.host}:{error.port}: {error.os_error}"
    if isinstance(error, TimeoutError):
        return "the server's data port did not answer in time"
    return f"the connection to the server's data port was lost ({type(error).__name__})"
