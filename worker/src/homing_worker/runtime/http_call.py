"""One HTTP request to a function, reading no more of the answer than may be kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from homing_core import limits
from homing_core.reasons import FailureReason
from homing_core.retry import CARRIER_HEADER, NO_ADVICE, RETRY_HEADER, RetryAdvice
from homing_worker.runtime.answer_stream import AnswerStream
from homing_worker.runtime.base import Answer, Body, CallFailedError, Request
from homing_worker.runtime.connections import ConnectionLostError, KeptConnections
from homing_worker.runtime.headers import kept_headers, readable
from homing_worker.runtime.spool import Spool, Spools

_STREAMED_TYPES: Final = frozenset({"text/event-stream", "application/x-ndjson"})
"""Media types of answers that are made to be read as they come."""
_MOMENT: Final = 0.005
"""An answer that is over within so many seconds after its head is not streamed: that takes a connection of its own."""


def open_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """Return the session for requests to functions. It sets no time-outs: attempts have theirs.

    :param resolver: Asked for the addresses of hosts; aiohttp's own where none is given.
    """
    connections = KeptConnections(resolver=resolver)
    return aiohttp.ClientSession(
        connector=connections,
        # Only another attempt may run the function once more.
        middlewares=(connections.send_once,),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        # What a function compressed stays so: unpacking it could fill the memory.
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        max_line_size=limits.MAX_ANSWER_HEADER_SIZE,
        max_field_size=limits.MAX_ANSWER_HEADER_SIZE,
        max_headers=limits.MAX_ANSWER_HEADERS,
        trust_env=False,
    )


async def exchange(session: aiohttp.ClientSession, origin: str, request: Request) -> Answer:
    """Send a request and read the answer.

    :param origin: Scheme, host and port.
    :raises CallFailedError: There is no answer, or none that can be kept.
    :raises SpoolError: This worker has no room for a large one.
    """
    url = URL(origin + request.target, encoded=True)
    headers = request.headers
    if isinstance(request.body, Spool):
        headers = [*headers, ("Content-Length", str(len(request.body)))]
    try:
        async with session.request(
            request.method,
            url,
            data=_sent(request.body),
            headers=headers,
            allow_redirects=False,
        ) as response:
            answer = Answer(
                status_code=response.status,
                headers=kept_headers(response.headers.items(), to_head=response.method == "HEAD"),
                content_type=readable(response.headers.get("Content-Type", "")),
                body=b"",
                advice=_advice(response),
            )
            begun: list[bytes] = []
            stream = request.stream
            if stream is not None and stream.takes(answer.status_code, answer.advice) and _comes_bit_by_bit(response):
                begun = await _beginning(response)
                if not response.content.at_eof() and await stream.open(
                    answer.status_code, answer.headers, answer.content_type, length=response.content_length
                ):
                    await _pass_on(response, begun, stream)
                    return answer
            return replace(answer, body=await _read(response, begun, request.spools))
    except aiohttp.ClientConnectorError as error:
        raise CallFailedError(
            FailureReason.CONNECTION_FAILED, f"no connection could be made: {error.os_error}", suspect=True
        ) from error
    except (ConnectionLostError, aiohttp.ServerConnectionError, OSError) as error:
        raise CallFailedError(
            FailureReason.CONNECTION_LOST, "the connection closed before an answer came", suspect=True
        ) from error
    except aiohttp.ClientPayloadError as error:
        raise CallFailedError(
            FailureReason.CONNECTION_LOST, f"the answer broke off: {_first_line(error)}", suspect=True
        ) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise CallFailedError(
            FailureReason.BAD_RESPONSE, f"the answer is not valid HTTP: {_first_line(error)}"
        ) from error


def _advice(response: aiohttp.ClientResponse) -> RetryAdvice:
    if 200 <= response.status < 300:
        return NO_ADVICE
    headers = response.headers
    return RetryAdvice.of(
        after=headers.get("Retry-After", ""),
        retry=headers.getall(RETRY_HEADER, ()),
        carrier=headers.get(CARRIER_HEADER, ""),
    )


def _sent(body: Body) -> bytes | AsyncIterator[bytes] | None:
    return body.parts() if isinstance(body, Spool) else body or None


def _comes_bit_by_bit(response: aiohttp.ClientResponse) -> bool:
    """Tell whether an answer is one for which it is worth while not to wait until it is whole."""
    if response.content.at_eof():
        return False
    length = response.content_length
    return length is None or length > limits.MAX_INLINE_RESULT or response.content_type in _STREAMED_TYPES


async def _beginning(response: aiohttp.ClientResponse) -> list[bytes]:
    """Return what comes of a body within moments: most are whole by then."""
    chunks: list[bytes] = []
    if (response.content_length or 0) > limits.MAX_INLINE_RESULT:
        return chunks
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_MOMENT):
            while size <= limits.MAX_INLINE_RESULT and not response.content.at_eof():
                chunks.append(await response.content.readany())
                size += len(chunks[-1])
    return chunks


async def _pass_on(response: aiohttp.ClientResponse, begun: list[bytes], stream: AnswerStream) -> None:
    """Pass on a body: what was read of it, and the rest as it comes."""
    await stream.write(b"".join(begun))
    while not response.content.at_eof():
        await stream.write(await response.content.readany())
    await stream.finish()


async def _read(response: aiohttp.ClientResponse, begun: list[bytes], spools: Spools) -> Body:
    """Read a body up to the limit, a large one into a file.

    :param begun: What was read of it.
    :raises CallFailedError: It is larger.
    :raises SpoolError: There is no room for it.
    """
    if (response.content_length or 0) > limits.MAX_PAYLOAD and response.method != "HEAD":
        raise _too_large(response)
    size, chunks = sum(map(len, begun)), begun
    while size <= limits.MAX_INLINE_RESULT:
        if response.content.at_eof():
            return b"".join(chunks)
        chunk = await response.content.readany()
        size += len(chunk)
        chunks.append(chunk)
    return await _spool(response, chunks, await spools.open())


async def _spool(response: aiohttp.ClientResponse, chunks: list[bytes], spool: Spool) -> Spool:
    """Move a body into a file: what was read of it, then the rest."""
    await spool.write(b"".join(chunks))
    async for chunk in response.content.iter_chunked(limits.MAX_PART):
        if len(spool) + len(chunk) > limits.MAX_PAYLOAD:
            raise _too_large(response)
        await spool.write(chunk)
    return spool


def _too_large(response: aiohttp.ClientResponse) -> CallFailedError:
    # Closing, not releasing: the rest of the body must not be read by anyone.
    response.close()
    return CallFailedError(
        FailureReason.RESULT_TOO_LARGE,
        f"the body of the answer is larger than the limit of {limits.MAX_PAYLOAD} bytes",
        status_code=response.status,
        permanent=True,
    )


def _first_line(error: BaseException) -> str:
    text = str(error).split("\n", 1)[0][:200]
    return text.encode("utf-8", "replace").decode()
