"""One request to the receiver of a delivery: signed, guarded, and bounded in what is read of the answer."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver

from homing_core.guard import GATEWAY, ForbiddenTargetError, Guard
from homing_core.limits import KIB, MAX_ANSWER_HEADER_SIZE, MAX_ANSWER_HEADERS, MIB
from homing_core.reasons import FailureReason
from homing_core.signing import Signer
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.deliveries.outcome import Outcome, answered, failed
from homing_worker.deliveries.receivers import MAX_IN_FLIGHT_PER_RECEIVER
from homing_worker.deliveries.request import body_of, headers_of, signature_headers, url_of
from homing_worker.runtime import Body, CallFailedError
from homing_worker.runtime.bodies import Bodies
from homing_worker.runtime.connections import ConnectionLostError, KeptConnections
from homing_worker.runtime.headers import Headers
from homing_worker.runtime.resolver import GuardedResolver
from homing_worker.runtime.spool import Spool, SpoolError

TIMEOUT: Final = 15.0
"""Seconds that a receiver has to answer."""
MIN_BYTES_PER_SECOND: Final = 1 * MIB
"""A receiver of a large body has a second more for so many bytes."""
DRAIN_TIMEOUT: Final = 2.0
"""Seconds that the body of an answer has to come, once its status is there."""
MAX_RESPONSE: Final = 64 * KIB
"""So many bytes of an answer are read, to keep the connection; what they say does not matter."""


class WebhookClient:
    """Posts deliveries to where they may go."""

    def __init__(
        self,
        guard: Guard,
        bodies: Bodies,
        resolver: AbstractResolver | None = None,
        *,
        server_tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare to post.

        :param server_tls: How the server itself is checked, which the host ``gateway`` names; None for the certificates
            of the system, by which all others are checked.
        :param resolver: Asked for the addresses of hosts; the name servers where none is given.
        """
        self._guard = guard
        self._bodies = bodies
        self._guarded = GuardedResolver(guard, resolver)
        self._session = _open_session(resolver=self._guarded, use_dns_cache=False)
        # The server says itself where it is, on a private network as a rule; no name in a URL leads here.
        self._to_server = _open_session(ssl=True if server_tls is None else server_tls)

    async def close(self) -> None:
        """Disconnect."""
        await self._to_server.close()
        await self._session.close()
        await self._guarded.close()

    async def post(self, message: DeliveryMessage, keys: Sequence[bytes]) -> Outcome:
        """Post a delivery, once. Redirects are not followed: they are failures.

        :param keys: It is signed with each of them.
        """
        payload = message.result.payload
        if not payload.HasField("blob"):
            return await self._post(message, body_of(message), keys, TIMEOUT)
        try:
            async with self._bodies.spools() as spools:
                body = await self._bodies.fetch(message.result_url, payload.blob, spools)
                return await self._post(message, body, keys, TIMEOUT + len(body) / MIN_BYTES_PER_SECOND)
        except CallFailedError as error:
            return failed(error.reason, error.message)

    async def _post(  # noqa: PLR0911 one for each way to fail
        self,
        message: DeliveryMessage,
        body: Body,
        keys: Sequence[bytes],
        timeout: float,  # noqa: ASYNC109 it is a part of what failed
    ) -> Outcome:
        try:
            target = self._guard.check_url(message.uri)
            url = url_of(message, target)
            session = self._to_server if target.host == GATEWAY else self._session
            headers = [*headers_of(message), *await _signed(message, body, keys), ("content-length", str(len(body)))]
            async with asyncio.timeout(timeout) as scope:
                async with session.post(
                    url,
                    data=body.parts() if isinstance(body, Spool) else body or None,
                    headers=headers,
                    allow_redirects=False,
                ) as response:
                    scope.reschedule(None)
                    await _drain(response)
                    return answered(response.status, response.headers.get("retry-after", ""))
        except ForbiddenTargetError as error:
            return failed(FailureReason.TARGET_FORBIDDEN, f"the URL {error}", retryable=False)
        except TimeoutError:
            return failed(FailureReason.TIMEOUT, f"the receiver did not answer within {timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            return failed(FailureReason.CONNECTION_FAILED, f"no connection could be made: {error.os_error}")
        except aiohttp.InvalidURL as error:
            return failed(FailureReason.TARGET_INVALID, f"the URL is not valid: {error}", retryable=False)
        except SpoolError as error:
            return failed(FailureReason.PAYLOAD_UNAVAILABLE, str(error))
        except (ConnectionLostError, aiohttp.ClientConnectionError, OSError) as error:
            return failed(FailureReason.CONNECTION_LOST, f"the connection was lost: {error}")
        except aiohttp.ClientError as error:
            return failed(FailureReason.BAD_RESPONSE, f"the receiver's answer is not valid HTTP: {error}")
        except (ValueError, UnicodeError) as error:
            return failed(FailureReason.TARGET_INVALID, f"no request can be made: {error}", retryable=False)


def _open_session(**connections: Any) -> aiohttp.ClientSession:
    connector = KeptConnections(limit_per_host=2 * MAX_IN_FLIGHT_PER_RECEIVER, **connections)
    return aiohttp.ClientSession(
        connector=connector,
        middlewares=(connector.send_once,),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=MAX_ANSWER_HEADER_SIZE,
        max_field_size=MAX_ANSWER_HEADER_SIZE,
        max_headers=MAX_ANSWER_HEADERS,
        # The environment's proxies would connect for us, unguarded.
        trust_env=False,
    )


async def _signed(message: DeliveryMessage, body: Body, keys: Sequence[bytes]) -> Headers:
    timestamp = int(time.time())
    signer = Signer(keys, id_=message.delivery_id, timestamp=timestamp)
    if isinstance(body, Spool):
        async for part in body.parts():
            await asyncio.to_thread(signer.feed, part)
    else:
        signer.feed(body)
    return signature_headers(message, timestamp, signer.signature())


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a small answer, so that the connection can be used again; drop the connection of another one.

    The status has said everything: however the rest of the answer goes, that stands.
    """
    size = 0
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT):
            while not response.content.at_eof():
                size += len(await response.content.readany())
                if size > MAX_RESPONSE:
                    break
            else:
                return
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass
    response.close()
