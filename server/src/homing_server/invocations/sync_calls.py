"""Synchronous calls: their callers wait at this server for the answer of a worker.

A caller that goes away stops its call. That is announced to all workers, since the call may still wait in its queue, or
be on the way to any of them. A worker remembers it until its deadline, and one that connects has it in its snapshot.
One that starts it all the same reports the start, and it is announced again.

A caller may take the answer as it comes: then its worker streams it to this server, see
:mod:`homing_server.invocations.answer_stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import structlog
from google.protobuf.message import DecodeError

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Broker, BrokerError, Received, UnroutableError
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import CancelledCall, Ended, SyncReply, SyncRequest, Tombstone
from homing_server.auth.identity import Identity
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.control import ControlChannel
from homing_server.errors import ApiError, Code, ErrorReason, unavailable
from homing_server.functions.catalog import Catalog
from homing_server.invocations.answer_stream import AnswerStream, NobodyWaitsError
from homing_server.invocations.sync_records import Call, SyncRecords
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.invocation_rows import invocation_of_call
from homing_server.tasks import Tasks

_log = structlog.get_logger(__name__)

_LOST_WORKER_POLL_SECONDS = 1.0
"""How often, in seconds, is looked for workers that were lost."""
_DEADLINE_MARGIN_SECONDS = 0.5
"""A call that is cancelled so shortly before its deadline was cancelled for that: clients cut calls off at it."""
_LATE_SECONDS = 0.05
"""An attempt that timed out so shortly before its caller's deadline was ended for that, by the clock of its worker."""
_GATHER_SECONDS = 0.01
"""For so many seconds cancelled calls gather, to go in one message: those of one connection end together."""

_CANCELLED_SECONDS = 60.0
"""A call whose answer streams is past its deadline perhaps: that its caller went away is remembered for so long."""

_RECORD_SECONDS = 1.0
"""How often calls that last are recorded."""


class SyncCalls:
    """Sends calls to workers and brings their answers back."""

    def __init__(
        self,
        broker: Broker,
        presence: Presence,
        wait_reasons: WaitReasons,
        urls: SignedUrls,
        *,
        blobs: Blobs,
        catalog: Catalog,
        control: ControlChannel,
        records: SyncRecords,
        tasks: Tasks,
    ) -> None:
        self._blobs = blobs
        self._broker = broker
        self._catalog = catalog
        self._control = control
        self._tasks = tasks
        self._presence = presence
        self._records = records
        self._wait_reasons = wait_reasons
        self._urls = urls
        self._address = ""
        self._calls: dict[str, Call] = {}
        self._unannounced: list[CancelledCall] = []
        self._draining = False
        control.on_stops(self._hear_stops)

    async def call(
        self,
        invocation_id: str,
        spec: api.InvocationSpec,
        *,
        timeout: float,  # noqa: ASYNC109 it travels with the call
        caller: Identity,
        traceparent: str,
    ) -> api.Invocation:
        """Run an invocation, wait for its end and return it. Where this is cancelled the invocation is stopped.

        :param timeout: Seconds after which the caller waits no more; what has not started by then never starts.
        :raises ApiError: NOT_FOUND; DEADLINE_EXCEEDED; UNAVAILABLE where the worker, or the way to it, was lost.
        """
        call = await self._prepare(invocation_id, spec, timeout=timeout, caller=caller, traceparent=traceparent)
        self._calls[invocation_id] = call
        try:
            async with asyncio.timeout(timeout):
                ended = await self._run(call)
                assert ended is not None, "its answer is not streamed"
                return ended
        except TimeoutError:
            raise self._too_late(call) from None
        except asyncio.CancelledError:
            # Where it was waited for, the answer is cancelled with this.
            if call.answer.cancelled() or not call.answer.done():
                self._on_caller_gone(call)
            raise
        finally:
            del self._calls[invocation_id]

    @asynccontextmanager
    async def stream(
        self,
        invocation_id: str,
        spec: api.InvocationSpec,
        *,
        timeout: float,  # noqa: ASYNC109 it travels with the call
        caller: Identity,
        traceparent: str,
    ) -> AsyncIterator[AnswerStream]:
        """Run an invocation for a caller who takes its answer as it comes.

        The context begins once the head of the answer is known, or that there is none. Then come the parts; and then
        the ended invocation is known. Where the context is left before, the caller has gone, and the invocation is
        stopped. ::

            async with sync_calls.stream(...) as answer:
                if answer.head is not None:      # status_code, headers, content_type
                    async for part in answer.parts():
                        ...
                answer.ended                     # the invocation: whether it succeeded, and why not

        An answer whose ``ended`` is known when the context begins came whole. One whose ``ended`` is no success after
        parts were passed on has broken off.

        :param timeout: Seconds after which the head is not waited for any more; what has not started by then never
            starts. Once the head is there the attempt time-out bounds the answer.
        :raises ApiError: As :meth:`call` does; and so do the parts.
        """
        call = await self._prepare(invocation_id, spec, timeout=timeout, caller=caller, traceparent=traceparent)
        call.request.stream_url = self._urls.streaming(invocation_id)
        answer = call.stream = AnswerStream(self._blobs, on_head=partial(_begin_to_stream, call))
        self._calls[invocation_id] = call
        ending: asyncio.Task[api.Invocation] | None = None
        left = False
        """Whether the caller goes away before the end."""
        try:
            try:
                async with asyncio.timeout(timeout):
                    ended = await self._run(call)
            except TimeoutError:
                raise self._too_late(call) from None
            except asyncio.CancelledError:
                left = call.answer.cancelled() or not call.answer.done()
                raise
            if ended is None:
                ending = asyncio.ensure_future(self._end_of(call))
                answer.follow(ending)
            else:
                answer.come_whole(ended)
            yield answer
        finally:
            del self._calls[invocation_id]
            if left or not (ending is None or ending.done()):
                self._on_caller_gone(call)
            answer.close()
            if ending is not None:
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)

    async def receive_stream(self, invocation_id: str, chunks: AsyncIterable[bytes]) -> None:
        """Pass on what a worker streams, and return once its caller was handed all of it.

        :raises NobodyWaitsError: No caller waits here for it.
        :raises ReaderGoneError: The caller goes away meanwhile.
        :raises BadStreamError: It is no answer.
        """
        call = self._calls.get(invocation_id)
        if call is None or call.stream is None:
            raise NobodyWaitsError
        await call.stream.receive(chunks)

    async def _prepare(
        self,
        invocation_id: str,
        spec: api.InvocationSpec,
        *,
        timeout: float,  # noqa: ASYNC109 it travels with the call
        caller: Identity,
        traceparent: str,
    ) -> Call:
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
            function_revision=(await self._catalog.get(spec.function)).revision,
        )
        return Call(request, asyncio.get_running_loop().create_future())

    async def _run(self, call: Call) -> api.Invocation | None:
        """Send a call to a worker, and return how it ended; None where its answer is streamed from now on.

        :raises ApiError: The worker, or the way to it, was lost.
        :raises TimeoutError: Its attempt ran until the caller's deadline.
        """
        request = call.request
        while True:
            await self._publish(request)
            ended = await call.answer
            if ended is None:
                return None
            if isinstance(ended, api.Invocation) or not await self._is_deployed_again(request, ended):
                outcome = self._ended(call, ended)
                late = now_us() >= request.deadline_us - _LATE_SECONDS * 1e6
                if late and outcome.state == api.INVOCATION_STATE_TIMED_OUT:
                    # The worker ends attempts at the deadline: callers are told the same, whoever was the first.
                    raise TimeoutError
                return outcome
            call.answer = asyncio.get_running_loop().create_future()

    async def _end_of(self, call: Call) -> api.Invocation:
        """Return how a call ended whose answer is streamed.

        :raises ApiError: The worker, or the way to it, was lost.
        """
        ended = await call.answer
        assert ended is not None, "it begins once"
        return self._ended(call, ended)

    def _ended(self, call: Call, ended: Ended | api.Invocation) -> api.Invocation:
        if isinstance(ended, api.Invocation):
            return ended
        self._records.note_end(call, ended)
        return invocation_of_call(call.request, ended, time_us=now_us())

    async def look_for_lost_workers(self) -> None:
        """End the calls whose worker is not heard of any more. One step of a loop."""
        await asyncio.sleep(_LOST_WORKER_POLL_SECONDS)
        for call in self._calls.values():
            if call.worker and not self._presence.lives(call.worker) and not call.answer.done():
                call.answer.set_exception(
                    unavailable(ErrorReason.WORKER_LOST, "the worker that ran the invocation was lost")
                )

    async def record_lasting(self) -> None:
        """Record the calls that last. One step of a loop."""
        await asyncio.sleep(_RECORD_SECONDS)
        await self._records.keep(self._calls.values())

    async def _is_deployed_again(self, request: SyncRequest, ended: Ended) -> bool:
        """Tell whether a call never started since its function was deleted, and the store has a later one by now.

        This server may not have heard of that yet, nor whoever refused the call. It then goes to the later one.
        """
        if ended.failure.reason != FailureReason.FUNCTION_DELETED or ended.attempts:
            return False
        try:
            revision = (await self._catalog.get_stored(request.spec.function)).revision
        except ApiError:
            return False
        later = revision > request.function_revision
        request.function_revision = revision
        return later

    async def _publish(self, request: SyncRequest) -> None:
        if not self._address:
            raise unavailable(ErrorReason.BROKER_UNAVAILABLE, "there is no connection to the broker")
        try:
            await self._broker.publish_sync(
                request.spec.function,
                request.SerializeToString(),
                expires_in=max(0.001, (request.deadline_us - now_us()) / 1e6),
            )
        except UnroutableError:
            # The queue of a function that exists was removed by hand.
            await self._broker.open_function(request.spec.function)
            raise unavailable(
                ErrorReason.BROKER_UNAVAILABLE, "the function's queue was missing and is made anew"
            ) from None
        except BrokerError as error:
            raise unavailable(ErrorReason.BROKER_UNAVAILABLE, f"the broker did not take the call: {error}") from error

    def _too_late(self, call: Call) -> ApiError:
        """Note that a caller waits no more, as its deadline has passed; return what it is told."""
        function = call.request.spec.function
        if call.worker:
            message = "the deadline passed while the invocation ran; it may still end"
        else:
            self._note_never(call, api.INVOCATION_STATE_EXPIRED, FailureReason.EXPIRED, "its deadline passed")
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
        # Of what was announced without a connection nobody has heard.
        self._announce(self._control.cancelled_calls)

    def drain(self) -> None:
        """Note that this server shuts down: what is cancelled from now on goes on, since no caller went away."""
        self._draining = True

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
        if call is None:
            if reply.HasField("started"):
                self._on_started_late(reply.invocation_id)
            return
        if call.answer.done():
            return
        match reply.WhichOneof("kind"):
            case "started":
                call.worker = reply.started.worker
                call.start_us = now_us()
            case "ended":
                call.answer.set_result(reply.ended)

    def _hear_stops(self, stops: Iterable[Tombstone]) -> None:
        for stop in stops:
            call = self._calls.get(stop.invocation_id)
            if call is not None:
                call.stopping = True

    def _on_started_late(self, invocation_id: str) -> None:
        """Take note that a worker has started a call whose caller waits no more."""
        self._records.withdraw_end(invocation_id)
        cancelled = self._control.cancelled_calls.get(invocation_id)
        if cancelled is not None:
            self._announce([cancelled])

    def _on_caller_gone(self, call: Call) -> None:
        """Stop a call, without keeping who cancels it waiting."""
        deadline_us = call.request.deadline_us
        if call.stream is not None and call.stream.streams:
            deadline_us = max(deadline_us, now_us() + int(_CANCELLED_SECONDS * 1e6))
        if self._draining or now_us() >= deadline_us - _DEADLINE_MARGIN_SECONDS * 1e6:
            return
        self._announce([CancelledCall(invocation_id=call.id, deadline_us=deadline_us)])
        if not call.worker:
            self._note_never(call, api.INVOCATION_STATE_STOPPED, FailureReason.STOPPED, "its caller went away")

    def _note_never(self, call: Call, state: api.InvocationState.ValueType, reason: FailureReason, why: str) -> None:
        """Note that a call never starts."""
        failure = api.Failure(reason=reason, message=f"{why} before it started")
        self._records.note_end(call, Ended(state=state, failure=failure))

    def _announce(self, cancelled: Iterable[CancelledCall]) -> None:
        first = not self._unannounced
        self._unannounced.extend(cancelled)
        if first and self._unannounced:
            self._tasks.run(self._announce_gathered(), "announce cancelled calls")

    async def _announce_gathered(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        gathered, self._unannounced = self._unannounced, []
        await self._control.announce_cancelled_calls(gathered)


def _begin_to_stream(call: Call) -> None:
    """Take note that a worker has begun to stream the answer: its end is yet to come."""
    begun = call.answer
    if not begun.done():
        call.answer = asyncio.get_running_loop().create_future()
        begun.set_result(None)
