"""homing.v1.InvocationService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_core.clock import now_us
from homing_core.guard import Guard
from homing_core.ids import new_id
from homing_server.auth.identity import Identity
from homing_server.auth.visibility import Visibility
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ApiError, Violation, invalid_request, invocation_not_found
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext
from homing_server.front.api.status import status_of
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Accepted, Admission
from homing_server.invocations.queries import Queries, redacted_for_anonymous
from homing_server.invocations.reruns import Reruns
from homing_server.invocations.stops import Stops
from homing_server.invocations.sync_calls import SyncCalls
from homing_server.payloads.blobs import Blobs
from homing_server.rules.paging import MAX_PAGE_BYTES
from homing_server.rules.validation import Checks, check_spec
from homing_server.watch.hub import WatchHub
from homing_server.watch.service import WatchService

_MAX_CALL_SECONDS = 7 * 24 * 3600.0
_MAX_WAIT_SECONDS = 600.0
_DEFAULT_WAIT_SECONDS = 60.0
_MARGIN_SECONDS = 0.25
"""A wait ends this many seconds before the deadline of its call, so that its answer arrives."""


class InvocationService:
    """Serves invocations."""

    def __init__(
        self,
        *,
        admission: Admission,
        blobs: Blobs,
        catalog: Catalog,
        guard: Guard,
        wait_reasons: WaitReasons,
        hub: WatchHub,
        queries: Queries,
        reruns: Reruns,
        stops: Stops,
        sync_calls: SyncCalls,
        visibility: Visibility,
        watches: WatchService,
        sync_timeout: float,
    ) -> None:
        self._admission = admission
        self._blobs = blobs
        self._catalog = catalog
        self._guard = guard
        self._wait_reasons = wait_reasons
        self._hub = hub
        self._queries = queries
        self._reruns = reruns
        self._stops = stops
        self._sync_calls = sync_calls
        self._visibility = visibility
        self._watches = watches
        self._sync_timeout = sync_timeout

    async def Invoke(self, request: api.InvokeRequest, context: CallContext) -> api.InvokeResponse:
        """Run a function and wait for its end."""
        identity = caller()
        invocation_id = await self._check_sync(request.spec, identity)
        await context.send_invocation_id(invocation_id)
        remaining = context.time_remaining()
        with _naming(invocation_id):
            invocation = await self._sync_calls.call(
                invocation_id,
                request.spec,
                timeout=self._sync_timeout if remaining is None else min(remaining, _MAX_CALL_SECONDS),
                caller=identity,
                traceparent=context.traceparent(),
            )
        await self._give_result(invocation, identity)
        return api.InvokeResponse(invocation=invocation)

    async def InvokeStream(
        self, request: api.InvokeStreamRequest, context: CallContext
    ) -> AsyncIterator[api.InvokeStreamResponse]:
        """Run a function and pass its answer on as it comes."""
        identity = caller()
        timeout = self._sync_timeout
        if request.HasField("timeout"):
            checks = Checks()
            checks.duration("timeout", request.timeout, 0, _MAX_CALL_SECONDS)
            checks.done()
            timeout = request.timeout.ToTimedelta().total_seconds()
        invocation_id = await self._check_sync(request.spec, identity)
        await context.send_invocation_id(invocation_id)
        remaining = context.time_remaining()
        streaming = self._sync_calls.stream(
            invocation_id,
            request.spec,
            timeout=timeout if remaining is None else min(remaining, timeout),
            caller=identity,
            traceparent=context.traceparent(),
        )
        with _naming(invocation_id):
            async with streaming as answer:
                head, whole = answer.head, answer.ended
                if head is not None and (whole is None or whole.state == invocation_pb2.INVOCATION_STATE_SUCCEEDED):
                    yield api.InvokeStreamResponse(
                        head=api.InvokeStreamResponse.Head(
                            status_code=head.status_code,
                            headers=head.headers,
                            content_type=head.content_type,
                            invocation_id=invocation_id,
                        )
                    )
                    async with aclosing(answer.parts()) as parts:
                        async for part in parts:
                            yield api.InvokeStreamResponse(data=part)
                    answer.invocation.result.payload.ClearField("data")
                await self._give_result(answer.invocation, identity)
                yield api.InvokeStreamResponse(invocation=answer.invocation)

    async def InvokeAsync(self, request: api.InvokeAsyncRequest, context: CallContext) -> api.InvokeAsyncResponse:
        """Accept an invocation."""
        identity = caller()
        accepted = await self._admission.accept(
            request.spec,
            request_id=request.request_id,
            caller=identity,
            traceparent=context.traceparent(),
            connection=context.peer,
        )
        invocation = await self._queries.accepted(accepted, caller=identity)
        return api.InvokeAsyncResponse(invocation=invocation, duplicate=accepted.draft is None)

    async def GetInvocation(
        self, request: api.GetInvocationRequest, _context: CallContext
    ) -> api.GetInvocationResponse:
        """Return a record."""
        _check_id(request.id)
        invocation = await self._queries.get(request.id, caller=caller(), include_payload=request.include_payload)
        return api.GetInvocationResponse(invocation=invocation)

    async def WaitInvocation(
        self, request: api.WaitInvocationRequest, context: CallContext
    ) -> api.WaitInvocationResponse:
        """Wait for an end."""
        _check_id(request.id)
        wait = _DEFAULT_WAIT_SECONDS
        if request.HasField("timeout"):
            checks = Checks()
            checks.duration("timeout", request.timeout, 0, _MAX_WAIT_SECONDS)
            checks.done()
            wait = request.timeout.ToTimedelta().total_seconds()
        remaining = context.time_remaining()
        if remaining is not None:
            wait = max(0.0, min(wait, remaining - _MARGIN_SECONDS))
        await self._visibility.check_read(request.id, caller())
        invocation = await self._hub.wait_ended(request.id, wait)
        if invocation is None:
            raise invocation_not_found(request.id)
        return api.WaitInvocationResponse(invocation=self._wait_reasons.explain(invocation))

    def WatchResults(self, request: api.WatchResultsRequest, _context: CallContext) -> AsyncIterator[bytes]:
        """Stream ends, or all changes; its messages are serialised already."""
        return self._watches.watch(request, caller=caller())

    async def BatchInvokeAsync(
        self, request: api.BatchInvokeAsyncRequest, context: CallContext
    ) -> api.BatchInvokeAsyncResponse:
        """Accept many invocations."""
        identity = caller()
        identity.take(max(1, len(request.requests)))
        if not identity.known:
            await self._check_public_batch(request, identity)
        checks = Checks()
        if not request.requests:
            checks.add("requests", "must be at least 1")
        checks.done()
        outcomes = await self._admission.accept_batch(
            request.requests, caller=identity, traceparent=context.traceparent(), connection=context.peer
        )
        earlier = await self._queries.records(
            {outcome.id for outcome in outcomes if isinstance(outcome, Accepted) and outcome.draft is None},
            include_result=False,
        )
        response = api.BatchInvokeAsyncResponse()
        for outcome in outcomes:
            result = response.results.add()
            if isinstance(outcome, ApiError):
                result.error.CopyFrom(status_of(outcome))
            elif outcome.draft is None:
                result.accepted.invocation.CopyFrom(redacted_for_anonymous(earlier[outcome.id], identity))
                result.accepted.duplicate = True
            else:
                result.accepted.invocation.CopyFrom(self._queries.fresh(outcome.draft))
        _fit(response)
        return response

    async def ListInvocations(
        self, request: api.ListInvocationsRequest, _context: CallContext
    ) -> api.ListInvocationsResponse:
        """Return a page of records."""
        return await self._queries.list(request, caller=caller())

    async def CountInvocations(
        self, request: api.CountInvocationsRequest, _context: CallContext
    ) -> api.CountInvocationsResponse:
        """Count records."""
        return await self._queries.count(request, caller=caller())

    def BulkStop(self, request: api.BulkStopRequest, _context: CallContext) -> AsyncIterator[api.BulkStopResponse]:
        """Stop all that a filter selects."""
        return self._stops.stop_selected(request, caller=caller())

    def BulkRerun(self, request: api.BulkRerunRequest, context: CallContext) -> AsyncIterator[api.BulkRerunResponse]:
        """Run many again."""
        return self._reruns.rerun_all(request, caller=caller(), traceparent=context.traceparent())

    async def StopInvocation(
        self, request: api.StopInvocationRequest, _context: CallContext
    ) -> api.StopInvocationResponse:
        """Stop an invocation."""
        _check_id(request.id)
        identity = caller()
        await self._visibility.check_function_of(request.id, identity)
        await self._stops.stop(request.id, caller=identity, reason=request.reason)
        return api.StopInvocationResponse(invocation=await self._queries.record(request.id))

    async def RerunInvocation(
        self, request: api.RerunInvocationRequest, context: CallContext
    ) -> api.RerunInvocationResponse:
        """Run one again."""
        _check_id(request.id)
        identity = caller()
        await self._visibility.check_function_of(request.id, identity)
        accepted = await self._reruns.rerun(request, caller=identity, traceparent=context.traceparent())
        invocation = await self._queries.accepted(accepted, caller=identity)
        return api.RerunInvocationResponse(invocation=invocation, duplicate=accepted.draft is None)

    async def _check_sync(self, spec: invocation_pb2.InvocationSpec, identity: Identity) -> str:
        """Check what is to be run for a caller who waits, and return the id of the invocation.

        :raises ApiError: It may not run so.
        """
        await self._catalog.check_invoke(spec.function, identity)
        identity.check_options(spec)
        checks = Checks()
        check_spec(checks, spec, sync=True, now_us=now_us(), guard=self._guard)
        checks.done()
        await self._catalog.get(spec.function)
        invocation_id = new_id()
        if spec.payload.HasField("blob"):
            await self._visibility.check_read_blob(spec.payload.blob.id, identity)
            await self._blobs.hold(invocation_id, spec.payload)
        return invocation_id

    async def _give_result(self, invocation: invocation_pb2.Invocation, identity: Identity) -> None:
        """Let a caller read what its invocation answered: the record may come later than the answer, or never."""
        if invocation.result.payload.HasField("blob"):
            await self._blobs.give(invocation.result.payload.blob.id, identity.name)

    async def _check_public_batch(self, request: api.BatchInvokeAsyncRequest, identity: Identity) -> None:
        """Check that all functions of a batch are public.

        :raises ApiError: UNAUTHENTICATED.
        """
        for name in sorted({each.spec.function for each in request.requests}) or [""]:
            await self._catalog.check_public(name, identity)


@contextmanager
def _naming(invocation_id: str) -> Iterator[None]:
    """Name the invocation in errors: it may run, or have run, and then there will be a record."""
    try:
        yield
    except ApiError as error:
        error.metadata = {**error.metadata, "invocation": invocation_id}
        raise


def _fit(response: api.BatchInvokeAsyncResponse) -> None:
    """Leave out of the last invocations of an answer what can be asked for, until it is one that all clients take."""
    excess = response.ByteSize() - MAX_PAGE_BYTES
    for result in reversed(response.results):
        if excess <= 0:
            return
        if result.HasField("accepted"):
            whole = result.accepted.invocation
            short = invocation_pb2.Invocation(
                id=whole.id, function=whole.function, state=whole.state, create_time=whole.create_time
            )
            excess -= whole.ByteSize() - short.ByteSize()
            whole.CopyFrom(short)


def _check_id(invocation_id: str) -> None:
    if not invocation_id:
        raise invalid_request([Violation(field="id", description="must not be empty")])
