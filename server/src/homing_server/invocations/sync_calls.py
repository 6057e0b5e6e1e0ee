"""Synchronous calls: their callers wait at this server for the answer of a worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Broker, BrokerError, Received, UnroutableError
from homing_core.clock import now_us
from homing_core.wire.v1 import Ended, Event, SyncReply, SyncRequest
from homing_server.auth.identity import Identity
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ApiError, Code, ErrorReason, unavailable
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.invocation_rows import invocation_of_call

_log = structlog.get_logger(__name__)

_LOST_WORKER_POLL_SECONDS = 1.0
"""How often, in seconds, is looked for workers that were lost."""


@dataclass(slots=True)
class _Call:
    answer: asyncio.Future[Ended]
    worker: str = ""
    """Who runs it; empty until it starts."""


class SyncCalls:
    """Sends calls to workers and brings their answers back."""

    def __init__(self, broker: Broker, presence: Presence, wait_reasons: WaitReasons, urls: SignedUrls) -> None:
        self._broker = broker
        self._presence = presence
        self._wait_reasons = wait_reasons
        self._urls = urls
        self._address = ""
        self._calls: dict[str, _Call] = {}

    async def call(
        self,
        invocation_id: str,
        spec: api.InvocationSpec,
        *,
        timeout: float,  # noqa: ASYNC109 it travels with the call
        caller: Identity,
        traceparent: str,
    ) -> api.Invocation:
        """Run an invocation, wait for its end and return it.

        :param timeout: Seconds after which the caller waits no more; what has not started by then never starts.
        :raises ApiError: DEADLINE_EXCEEDED; UNAVAILABLE where the worker, or the way to it, was lost.
        """
        now = now_us()
        request = SyncRequest(
            invocation_id=invocation_id,
            spec=spec,
            reply_to=self._address,
            create_us=now,
            deadline_us=now + int(timeout * 1e6),
            caller=caller.name,
            traceparent=traceparent,
            bodies=self._urls.access(invocation_id, spec.payload),
        )
        call = _Call(asyncio.get_running_loop().create_future())
        self._calls[invocation_id] = call
        try:
            async with asyncio.timeout(timeout):
                await self._publish(request, timeout)
                return invocation_of_call(request, _end_event(await call.answer))
        except TimeoutError:
            raise self._too_late(spec.function, call) from None
        finally:
            del self._calls[invocation_id]

    async def look_for_lost_workers(self) -> None:
        """End the calls whose worker is not heard of any more. One step of a loop."""
        await asyncio.sleep(_LOST_WORKER_POLL_SECONDS)
        for call in self._calls.values():
            if call.worker and not self._presence.lives(call.worker) and not call.answer.done():
                call.answer.set_exception(
                    unavailable(ErrorReason.WORKER_LOST, "the worker that ran the invocation was lost")
                )

    async def _publish(self, request: SyncRequest, timeout: float) -> None:  # noqa: ASYNC109
        if not self._address:
            raise unavailable(ErrorReason.BROKER_UNAVAILABLE, "there is no connection to the broker")
        try:
            await self._broker.publish_sync(request.spec.function, request.SerializeToString(), expires_in=timeout)
        except UnroutableError:
            # The queue of a function that exists was removed by hand.
            await self._broker.open_function(request.spec.function)
            raise unavailable(
                ErrorReason.BROKER_UNAVAILABLE, "the function's queue was missing and is made anew"
            ) from None
        except BrokerError as error:
            raise unavailable(ErrorReason.BROKER_UNAVAILABLE, f"the broker did not take the call: {error}") from error

    def _too_late(self, function: str, call: _Call) -> ApiError:
        if call.worker:
            message = "the deadline passed while the invocation ran; it may still end"
        else:
            match self._wait_reasons.why(function):
                case api.WAIT_REASON_PAUSED:
                    message = f"the deadline passed while {function!r} was paused; the invocation never starts"
                case api.WAIT_REASON_NO_WORKER:
                    message = f"the deadline passed and no live worker serves {function!r}; the invocation never starts"
                case _:
                    message = "the deadline passed before the invocation started; it never starts"
        return ApiError(code=Code.DEADLINE_EXCEEDED, reason=ErrorReason.DEADLINE_EXCEEDED, message=message)

    async def consume(self) -> None:
        """Take the answers of workers over a new connection."""
        self._address = await self._broker.consume_replies(self._hear)

    def lost(self) -> None:
        """End all calls: their answers went to an address that is no more."""
        self._address = ""
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(
                    unavailable(
                        ErrorReason.BROKER_LOST, "the connection to the broker was lost; the outcome is unknown"
                    )
                )

    def _hear(self, received: Received) -> None:
        try:
            reply = SyncReply.FromString(received.body)
        except DecodeError:
            _log.warning("unreadable_reply_dropped")
            return
        finally:
            received.ack()
        call = self._calls.get(reply.invocation_id)
        if call is None or call.answer.done():
            return
        match reply.WhichOneof("kind"):
            case "started":
                call.worker = reply.started.worker
            case "ended":
                call.answer.set_result(reply.ended)


def _end_event(ended: Ended) -> Event:
    event = Event(time_us=now_us())
    event.ended.CopyFrom(ended)
    return event
