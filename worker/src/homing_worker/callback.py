"""One request to a callback: what is sent, and what is made of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from homing.v1 import invocation_pb2 as api
from homing_core.limits import KIB, MIB
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.bodies import Bodies
from homing_worker.guard import ForbiddenAddressError, GuardedResolver
from homing_worker.headers import HOP_BY_HOP
from homing_worker.metrics import state_name
from homing_worker.run import USER_AGENT
from homing_worker.runtime import Body, CallFailedError
from homing_worker.settings import Network
from homing_worker.spool import Spool

TIMEOUT: Final = 15.0
SLOWEST: Final = 1 * MIB
"""A receiver of a large body has a second more for so many bytes."""
MAX_RESPONSE: Final = 64 * KIB
PER_HOST: Final = 8

_GONE: Final = 410
_NOT_SENT: Final = HOP_BY_HOP | {"content-length", "host", "expect"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CallbackOutcome:
    """What came of one request."""

    status_code: int
    """0 where there was no answer."""
    failure: api.Failure | None
    """None where the receiver took it."""
    retry_after: str = ""


class CallbackClient:
    """Posts results to callbacks, within the networks that are allowed."""

    def __init__(self, networks: Sequence[Network], bodies: Bodies) -> None:
        self._bodies = bodies
        self._resolver = GuardedResolver(networks)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver, use_dns_cache=False, limit=0, limit_per_host=PER_HOST, keepalive_timeout=2.0
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
            trust_env=False,
        )

    async def close(self) -> None:
        """Disconnect."""
        await self._session.close()
        await self._resolver.close()

    async def post(self, message: DeliveryMessage) -> CallbackOutcome:
        """Post a result to its callback, once. Redirects are not followed: they are failures."""
        payload = message.result.payload
        if not payload.HasField("blob"):
            return await self._post(message, payload.data, TIMEOUT)
        try:
            async with self._bodies.spools() as spools:
                body = await self._bodies.fetch(message.result_url, payload.blob, spools)
                return await self._post(message, body, TIMEOUT + len(body) / SLOWEST)
        except CallFailedError as error:
            return _failed(error.reason, error.message)

    async def _post(  # noqa: PLR0911 one for each way to fail
        self,
        message: DeliveryMessage,
        body: Body,
        timeout: float,  # noqa: ASYNC109 it is a part of what failed
    ) -> CallbackOutcome:
        try:
            url = URL(message.callback.url)
            self._resolver.check_literal(url.host or "")
            async with asyncio.timeout(timeout):
                async with self._session.post(
                    url,
                    data=body.parts() if isinstance(body, Spool) else body or None,
                    headers={**callback_headers(message), "content-length": str(len(body))},
                    allow_redirects=False,
                ) as response:
                    await _drain(response)
                    return _outcome(response)
        except ForbiddenAddressError as error:
            return _failed(FailureReason.CALLBACK_FORBIDDEN, f"callbacks may not go to {error}", retryable=False)
        except TimeoutError:
            return _failed(FailureReason.TIMEOUT, f"the receiver did not answer within {timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            return _failed(FailureReason.CONNECTION_FAILED, f"no connection could be made: {error.os_error}")
        except aiohttp.InvalidURL as error:
            return _failed(FailureReason.CALLBACK_INVALID, f"the URL is not valid: {error}", retryable=False)
        except (aiohttp.ClientConnectionError, OSError) as error:
            return _failed(FailureReason.CONNECTION_LOST, f"the connection was lost: {error}")
        except aiohttp.ClientError as error:
            return _failed(FailureReason.BAD_RESPONSE, f"the receiver's answer is not valid HTTP: {error}")
        except (ValueError, UnicodeError) as error:
            return _failed(FailureReason.CALLBACK_INVALID, f"no request can be made: {error}", retryable=False)


def callback_headers(message: DeliveryMessage) -> dict[str, str]:
    """Return the headers of a callback: the function's own, then those asked for, then what homing says."""
    result = message.result
    headers = {name: value for name, value in result.headers.items() if name not in _NOT_SENT}
    if result.payload.content_type:
        headers["content-type"] = result.payload.content_type
    headers |= {name.lower(): value for name, value in message.callback.headers.items()}
    seconds = max(0, message.end_us - message.start_us) / 1e6 if message.start_us else 0.0
    return headers | {
        "user-agent": USER_AGENT,
        "x-call-id": message.invocation_id,
        "x-function-name": message.function,
        "x-function-status": str(function_status(message)),
        "x-duration-seconds": f"{seconds:f}",
        "x-start-time": str(message.start_us * 1000),
        "x-homing-state": state_name(message.state),
        "x-homing-delivery-id": message.delivery_id,
    }


def function_status(message: DeliveryMessage) -> int:
    """Return the status of the function's last answer, or one that stands for its absence."""
    if message.result.status_code:
        return message.result.status_code
    return 504 if message.state == api.INVOCATION_STATE_TIMED_OUT else 500


def _outcome(response: aiohttp.ClientResponse) -> CallbackOutcome:
    status = response.status
    if 200 <= status < 300:
        return CallbackOutcome(status_code=status, failure=None)
    words = f"the receiver answered with status {status}"
    if 300 <= status < 400:
        words += "; redirects are not followed"
    return CallbackOutcome(
        status_code=status,
        failure=api.Failure(reason=FailureReason.HTTP_STATUS, message=words, retryable=status != _GONE),
        retry_after=response.headers.get("retry-after", ""),
    )


def _failed(reason: FailureReason, message: str, *, retryable: bool = True) -> CallbackOutcome:
    text = message[:1000].encode("utf-8", "replace").decode()
    return CallbackOutcome(status_code=0, failure=api.Failure(reason=reason, message=text, retryable=retryable))


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a small answer, so that the connection can be used again; drop the connection of a large one."""
    size = 0
    while not response.content.at_eof():
        size += len(await response.content.readany())
        if size > MAX_RESPONSE:
            response.close()
            return
