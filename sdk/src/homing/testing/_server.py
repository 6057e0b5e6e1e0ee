"""A server of the public API that answers as a test tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import grpc

from homing._core import convert
from homing._core.status import INVOCATION_ID_KEY
from homing._core.values import Invocation
from homing.testing._function import FakeCall, FakeFunction
from homing.testing._refusal import Refusal
from homing.testing._store import ENDS, Store, matches, slim
from homing.v1 import (
    function_pb2,
    function_service_pb2_grpc,
    invocation_service_pb2_grpc,
)
from homing.v1 import function_service_pb2 as functions_api
from homing.v1 import invocation_service_pb2 as api

if TYPE_CHECKING:
    from typing_extensions import Self

_THREADS: Final = 256
"""So many calls are answered at a time; those that wait for an end or watch hold a thread each."""
_BOOKMARK: Final = 10.0
_MESSAGE: Final = 16 * 1024 * 1024


class FakeServer:
    """A gRPC server in this process, on a free port of 127.0.0.1, for tests of applications.

    Functions answer as they are told, at once, and every call is recorded. Both clients talk to it, from threads and
    event loops alike. Schedules, delays and back-off take no time, callbacks are not made, nothing is durable.
    """

    def __init__(self) -> None:
        self._store = Store()
        self._functions: dict[str, FakeFunction] = {}
        self._deployed: dict[str, function_pb2.Function] = {}
        self._refusals: dict[str, list[Refusal]] = {}
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="homing-fake"),
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MESSAGE)),
        )
        # What they leave out answers UNIMPLEMENTED, as with a real server that does not serve it.
        invocations = _Invocations(self)  # type: ignore[abstract]
        functions = _Functions(self)  # type: ignore[abstract]
        invocation_service_pb2_grpc.add_InvocationServiceServicer_to_server(invocations, self._server)
        function_service_pb2_grpc.add_FunctionServiceServicer_to_server(functions, self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __repr__(self) -> str:
        return f"<FakeServer {self.target}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """Where it listens, ``HOST:PORT``."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen."""
        self._server.start()

    def stop(self) -> None:
        """End all calls and listen no more, for good."""
        self._server.stop(None).wait()

    def function(self, name: str) -> FakeFunction:
        """Return the function of a name, to tell it what to answer; it exists from then on.

        A function that is neither told anything nor deployed by a client is not found.
        """
        if name not in self._functions:
            self._functions[name] = FakeFunction(name, self._store.release)
            self._deployed.setdefault(name, function_pb2.Function(name=name, image=f"{name}:fake", revision=1))
        return self._functions[name]

    def refuse(
        self,
        method: str,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        *,
        reason: str = "FAKE",
        message: str = "refused by the test",
        times: int = 1,
    ) -> None:
        """Let the next calls of a method end with an error before they have an effect.

        :param method: The name of the gRPC method, for example ``InvokeAsync``.
        :param code: The status of the error.
        :param reason: Its reason.
        :param message: Its message.
        :param times: How many calls.
        """
        refusal = Refusal(code=code, reason=reason, message=message)
        self._refusals.setdefault(method, []).extend([refusal] * times)

    def calls(self, function: str | None = None) -> Sequence[FakeCall]:
        """Return the invocations that were asked for so far, of one function or of all, in order."""
        return tuple(call for call in tuple(self._store.calls) if function in (None, call.function))

    def invocations(self) -> Sequence[Invocation]:
        """Return the records of all invocations, in the order of their acceptance."""
        with self._store.changed:
            return tuple(convert.invocation(slim(record, payload=True)) for record in self._store.records.values())

    def _pass(self, method: str) -> None:
        with self._store.changed:
            if self._refusals.get(method):
                raise self._refusals[method].pop(0)

    def _find(self, name: str) -> FakeFunction:
        if name not in self._deployed:
            raise Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                reason="FUNCTION_NOT_FOUND",
                message=f"there is no function {name!r}",
                metadata={"function": name},
            )
        return self.function(name)


def _served(method: Callable[[Any, Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    """Return the method of a service, with what a test said of it, and with errors as a server gives them."""

    def serve(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            self.fake._pass(method.__name__)  # noqa: SLF001 - parts of one thing
            return method(self, request, context)
        except Refusal as refusal:
            refusal.abort(context)

    return serve


class _Invocations(invocation_service_pb2_grpc.InvocationServiceServicer):
    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self._store = fake._store  # noqa: SLF001 - parts of one thing

    @_served
    def Invoke(self, request: api.InvokeRequest, context: grpc.ServicerContext) -> api.InvokeResponse:  # noqa: N802
        function = self.fake._find(request.spec.function)  # noqa: SLF001
        record, _ = self._store.accept(request.spec, function, sync=True)
        context.send_initial_metadata(((INVOCATION_ID_KEY, record.id),))
        self._store.run(record.id)
        self._wait_ended(record.id, None, context)
        return api.InvokeResponse(invocation=slim(self._store.get(record.id)))

    @_served
    def InvokeAsync(  # noqa: N802
        self, request: api.InvokeAsyncRequest, _context: grpc.ServicerContext
    ) -> api.InvokeAsyncResponse:
        return self._accept(request)

    @_served
    def BatchInvokeAsync(  # noqa: N802
        self, request: api.BatchInvokeAsyncRequest, _context: grpc.ServicerContext
    ) -> api.BatchInvokeAsyncResponse:
        response = api.BatchInvokeAsyncResponse()
        for one in request.requests:
            result = response.results.add()
            try:
                result.accepted.CopyFrom(self._accept(one))
            except Refusal as refusal:
                result.refused.code = refusal.code.value[0]
                result.refused.message = refusal.message
                result.refused.reason = refusal.reason
        return response

    @_served
    def GetInvocation(  # noqa: N802
        self, request: api.GetInvocationRequest, _context: grpc.ServicerContext
    ) -> api.GetInvocationResponse:
        record = self._store.get(request.id)
        return api.GetInvocationResponse(invocation=slim(record, payload=request.include_payload))

    @_served
    def WaitInvocation(  # noqa: N802
        self, request: api.WaitInvocationRequest, context: grpc.ServicerContext
    ) -> api.WaitInvocationResponse:
        self._store.get(request.id)
        patience = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else 60.0
        self._wait_ended(request.id, patience, context)
        return api.WaitInvocationResponse(invocation=slim(self._store.get(request.id)))

    @_served
    def ListInvocations(  # noqa: N802
        self, request: api.ListInvocationsRequest, _context: grpc.ServicerContext
    ) -> api.ListInvocationsResponse:
        with self._store.changed:
            found = [slim(record, payload=True) for record in self._store.records.values()]
        found = [record for record in found if matches(request.filter, record)]
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
            self.fake._pass("WatchResults")  # noqa: SLF001
        except Refusal as refusal:
            refusal.abort(context)
        context.add_callback(self._wake)
        place = int(request.resume_token) if request.resume_token else len(store.ended)
        yield _bookmark(place)
        while context.is_active():
            store.wait(lambda: len(store.ended) > place or not context.is_active(), _BOOKMARK)  # noqa: B023
            for record in store.ended[place:]:
                place += 1
                if matches(request.filter, record):
                    yield api.WatchResultsResponse(resume_token=str(place), invocation=slim(record))
            yield _bookmark(place)

    def _accept(self, request: api.InvokeAsyncRequest) -> api.InvokeAsyncResponse:
        function = self.fake._find(request.spec.function)  # noqa: SLF001
        record, duplicate = self._store.accept(request.spec, function, sync=False, request_id=request.request_id)
        self._store.run(record.id)
        return api.InvokeAsyncResponse(invocation=slim(record), duplicate=duplicate)

    def _wait_ended(self, invocation_id: str, seconds: float | None, context: grpc.ServicerContext) -> None:
        context.add_callback(self._wake)
        record = self._store.records[invocation_id]
        self._store.wait(lambda: record.state in ENDS or not context.is_active(), seconds)

    def _wake(self) -> None:
        with self._store.changed:
            self._store.changed.notify_all()


class _Functions(function_service_pb2_grpc.FunctionServiceServicer):
    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake
        self._deployed = fake._deployed  # noqa: SLF001 - parts of one thing

    @_served
    def DeployFunction(  # noqa: N802
        self, request: functions_api.DeployFunctionRequest, _context: grpc.ServicerContext
    ) -> functions_api.DeployFunctionResponse:
        function = function_pb2.Function()
        function.CopyFrom(request.function)
        earlier = self._deployed.get(function.name)
        function.revision = earlier.revision + 1 if earlier else 1
        function.update_time.GetCurrentTime()
        function.create_time.CopyFrom(earlier.create_time if earlier else function.update_time)
        self._deployed[function.name] = function
        return functions_api.DeployFunctionResponse(function=function)

    @_served
    def GetFunction(  # noqa: N802
        self, request: functions_api.GetFunctionRequest, _context: grpc.ServicerContext
    ) -> functions_api.GetFunctionResponse:
        self.fake._find(request.name)  # noqa: SLF001
        return functions_api.GetFunctionResponse(function=self._deployed[request.name])

    @_served
    def ListFunctions(  # noqa: N802
        self, _request: functions_api.ListFunctionsRequest, _context: grpc.ServicerContext
    ) -> functions_api.ListFunctionsResponse:
        return functions_api.ListFunctionsResponse(functions=[self._deployed[name] for name in sorted(self._deployed)])

    @_served
    def DeleteFunction(  # noqa: N802
        self, request: functions_api.DeleteFunctionRequest, _context: grpc.ServicerContext
    ) -> functions_api.DeleteFunctionResponse:
        self.fake._find(request.name)  # noqa: SLF001
        del self._deployed[request.name]
        return functions_api.DeleteFunctionResponse()


def _bookmark(place: int) -> api.WatchResultsResponse:
    response = api.WatchResultsResponse(resume_token=str(place), bookmark=api.Bookmark())
    response.bookmark.time.GetCurrentTime()
    return response
