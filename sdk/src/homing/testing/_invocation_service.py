"""What a fake server answers about invocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import grpc

from homing._core.status import INVOCATION_ID_KEY
from homing.testing._records import ENDS, matches, slim
from homing.testing._refusal import Refusal, no_condition, served, served_stream
from homing.testing._rules import check_spec
from homing.v1 import InvocationFilter, invocation_pb2, invocation_service_pb2_grpc
from homing.v1 import invocation_service_pb2 as api
from homing.v1.invocation_pb2 import Invocation, InvocationSpec
from homing.v1.payload_pb2 import Payload

if TYPE_CHECKING:
    from homing.testing._state import State

_BOOKMARK: Final = 10.0
_COUNTED: Final = 10_000
_PART: Final = 64 * 1024


class Invocations(invocation_service_pb2_grpc.InvocationServiceServicer):
    """homing.v1.InvocationService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._store = state.store

    @served
    def Invoke(self, request: api.InvokeRequest, context: grpc.ServicerContext) -> api.InvokeResponse:  # noqa: N802
        return api.InvokeResponse(invocation=self._run(request.spec, None, context))

    @served_stream
    def InvokeStream(  # noqa: N802
        self, request: api.InvokeStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[api.InvokeStreamResponse]:
        timeout = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else None
        ended = self._run(request.spec, timeout, context)
        if ended.state not in ENDS:
            raise Refusal(
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
                reason="DEADLINE_EXCEEDED",
                message="the deadline passed while the invocation ran; it may still end",
                metadata={"invocation": ended.id},
            )
        chunks = self._store.parts.get(ended.id)
        if ended.state == invocation_pb2.INVOCATION_STATE_SUCCEEDED or chunks:
            result = ended.result
            head = api.InvokeStreamResponse.Head(
                status_code=result.status_code,
                headers=result.headers,
                content_type=result.payload.content_type,
                invocation_id=ended.id,
            )
            yield api.InvokeStreamResponse(head=head)
            for part in chunks or self._parts(result.payload):
                yield api.InvokeStreamResponse(data=part)
            result.payload.ClearField("data")
        yield api.InvokeStreamResponse(invocation=ended)

    @served
    def InvokeAsync(  # noqa: N802
        self, request: api.InvokeAsyncRequest, _context: grpc.ServicerContext
    ) -> api.InvokeAsyncResponse:
        return self._accept(request)

    @served
    def BatchInvokeAsync(  # noqa: N802
        self, request: api.BatchInvokeAsyncRequest, _context: grpc.ServicerContext
    ) -> api.BatchInvokeAsyncResponse:
        response = api.BatchInvokeAsyncResponse()
        for one in request.requests:
            result = response.results.add()
            try:
                result.accepted.CopyFrom(self._accept(one))
            except Refusal as refusal:
                result.error.CopyFrom(refusal.status())
        return response

    @served
    def GetInvocation(  # noqa: N802
        self, request: api.GetInvocationRequest, _context: grpc.ServicerContext
    ) -> api.GetInvocationResponse:
        record = self._store.get(request.id)
        return api.GetInvocationResponse(invocation=slim(record, payload=request.include_payload))

    @served
    def WaitInvocation(  # noqa: N802
        self, request: api.WaitInvocationRequest, context: grpc.ServicerContext
    ) -> api.WaitInvocationResponse:
        self._store.get(request.id)
        timeout = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else 60.0
        self._wait_ended(request.id, timeout, context)
        return api.WaitInvocationResponse(invocation=slim(self._store.get(request.id)))

    @served
    def ListInvocations(  # noqa: N802
        self, request: api.ListInvocationsRequest, _context: grpc.ServicerContext
    ) -> api.ListInvocationsResponse:
        found = self._store.find(request.filter)
        oldest_first = request.order == api.INVOCATION_ORDER_OLDEST_FIRST
        found.sort(key=lambda record: record.id, reverse=not oldest_first)
        if after := request.page_token:
            found = [record for record in found if (record.id > after if oldest_first else record.id < after)]
        size = min(request.page_size or 50, 1000)
        page = [slim(one, payload=request.include_payload, result=request.include_result) for one in found[:size]]
        return api.ListInvocationsResponse(invocations=page, next_page_token=page[-1].id if len(found) > size else "")

    def WatchResults(  # noqa: N802
        self, request: api.WatchResultsRequest, context: grpc.ServicerContext
    ) -> Iterator[api.WatchResultsResponse]:
        store = self._store
        try:
            self.state.check("WatchResults")
        except Refusal as refusal:
            refusal.abort(context)
        context.add_callback(self._store.wake)
        place = int(request.resume_token) if request.resume_token else len(store.changes)
        yield _bookmark(place)
        while context.is_active():
            store.wait(lambda: len(store.changes) > place or not context.is_active(), _BOOKMARK)  # noqa: B023
            for record in store.changes[place:]:
                place += 1
                if (request.include_transitions or record.state in ENDS) and matches(request.filter, record):
                    yield api.WatchResultsResponse(resume_token=str(place), invocation=slim(record))
            yield _bookmark(place)

    @served
    def CountInvocations(  # noqa: N802
        self, request: api.CountInvocationsRequest, _context: grpc.ServicerContext
    ) -> api.CountInvocationsResponse:
        found = Counter(record.state for record in self._store.find(request.filter))
        return api.CountInvocationsResponse(
            counts=[
                api.CountInvocationsResponse.Count(state=state, count=min(number, _COUNTED), more=number > _COUNTED)
                for state, number in sorted(found.items())
            ]
        )

    @served
    def StopInvocation(  # noqa: N802
        self, request: api.StopInvocationRequest, _context: grpc.ServicerContext
    ) -> api.StopInvocationResponse:
        return api.StopInvocationResponse(invocation=slim(self._store.stop(request.id, request.reason)))

    @served_stream
    def BulkStop(  # noqa: N802
        self, request: api.BulkStopRequest, _context: grpc.ServicerContext
    ) -> Iterator[api.BulkStopResponse]:
        return self.state.bulk(request, lambda: self._stop_all(request))

    @served
    def RerunInvocation(  # noqa: N802
        self, request: api.RerunInvocationRequest, _context: grpc.ServicerContext
    ) -> api.RerunInvocationResponse:
        earlier = self._store.check_ended(request.id)
        if request.HasField("payload"):
            earlier.spec.payload.CopyFrom(request.payload)
        record, duplicate = self.state.rerun(earlier, request.request_id)
        return api.RerunInvocationResponse(invocation=slim(record), duplicate=duplicate)

    @served_stream
    def BulkRerun(  # noqa: N802
        self, request: api.BulkRerunRequest, _context: grpc.ServicerContext
    ) -> Iterator[api.BulkRerunResponse]:
        return self.state.bulk(request, lambda: self._rerun_all(request))

    def _run(self, spec: InvocationSpec, seconds: float | None, context: grpc.ServicerContext) -> Invocation:
        """Run an invocation and wait until it ends, or so many seconds have passed; return its record.

        :raises Refusal: It may not run so.
        """
        check_spec(spec, sync=True)
        record, _ = self._store.accept(spec, self.state.find(spec.function), sync=True)
        context.send_initial_metadata(((INVOCATION_ID_KEY, record.id),))
        self._store.run(record.id)
        self._wait_ended(record.id, seconds, context)
        return slim(self._store.get(record.id))

    def _parts(self, payload: Payload) -> Iterator[bytes]:
        if payload.HasField("blob"):
            yield from (part.data for part in self._store.bodies.read(payload.blob.id))
        else:
            yield from (payload.data[start : start + _PART] for start in range(0, len(payload.data), _PART))

    def _stop_all(self, request: api.BulkStopRequest) -> api.BulkStopResponse:
        matched = [record for record in self._chosen(request.filter) if record.state not in ENDS]
        if request.dry_run:
            return api.BulkStopResponse(matched=len(matched))
        states = Counter(self._store.stop(record.id, request.reason).state for record in matched)
        return api.BulkStopResponse(
            matched=len(matched),
            stopped=states[invocation_pb2.INVOCATION_STATE_STOPPED],
            stopping=states[invocation_pb2.INVOCATION_STATE_STOPPING],
        )

    def _rerun_all(self, request: api.BulkRerunRequest) -> api.BulkRerunResponse:
        matched = [
            record
            for record in self._chosen(request.filter)
            if record.state in ENDS and (request.include_rerun or not self._store.was_rerun(record.id))
        ]
        response = api.BulkRerunResponse(matched=len(matched))
        for earlier in () if request.dry_run else matched:
            if earlier.function in self.state.deployed:
                self.state.rerun(earlier)
                response.accepted += 1
            else:
                response.refused += 1
        return response

    def _chosen(self, wanted: InvocationFilter) -> list[Invocation]:
        """Return what a filter selects that must not be empty.

        :raises Refusal: It is empty.
        """
        if wanted == InvocationFilter():
            raise no_condition()
        return self._store.find(wanted)

    def _accept(self, request: api.InvokeAsyncRequest) -> api.InvokeAsyncResponse:
        check_spec(request.spec, request_id=request.request_id)
        function = self.state.find(request.spec.function)
        self.state.check_destinations(request.spec)
        record, duplicate = self._store.accept(request.spec, function, sync=False, request_id=request.request_id)
        self._store.run(record.id)
        return api.InvokeAsyncResponse(invocation=slim(record), duplicate=duplicate)

    def _wait_ended(self, invocation_id: str, seconds: float | None, context: grpc.ServicerContext) -> None:
        context.add_callback(self._store.wake)
        record = self._store.records[invocation_id]
        self._store.wait(lambda: record.state in ENDS or not context.is_active(), seconds)


def _bookmark(place: int) -> api.WatchResultsResponse:
    response = api.WatchResultsResponse(resume_token=str(place), bookmark=api.Bookmark())
    response.bookmark.time.GetCurrentTime()
    return response
