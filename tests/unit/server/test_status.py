"""Errors reach callers as rich statuses, through a real gRPC connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import structlog.testing
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from homing.v1 import invocation_pb2, invocation_service_pb2_grpc
from homing.v1 import invocation_service_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_core.guard import Guard
from homing_server.auth.identity import Identity
from homing_server.auth.refusals import Refusals
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.errors import (
    ApiError,
    Code,
    ErrorReason,
    Violation,
    function_not_found,
    invalid_request,
    invocation_not_found,
    unavailable,
)
from homing_server.front.api import serving
from homing_server.front.api.caller import serve_for
from homing_server.front.api.calls import Calls
from homing_server.front.api.requests import Readers
from homing_server.front.api.serving import Serving
from homing_server.front.api.status import DOMAIN
from homing_server.front.grpc.authentication import AuthenticationInterceptor
from homing_server.front.grpc.status import ErrorInterceptor
from homing_server.front.http.status import refusal
from homing_server.rules.validation import Checks, check_spec
from homing_server.store.engine import StoreUnavailableError


class Failing(invocation_service_pb2_grpc.InvocationServiceServicer):
    """Fails as it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.go_on = asyncio.Event()
        """Cleared, a stream waits after its first message."""
        self.go_on.set()
        self.waiting = asyncio.Event()
        self.floods = False
        """Whether a watch has a message after the other."""
        self.first = api.WatchResultsResponse(resume_token="1")
        """The first message of a watch."""
        self.then: Callable[[], None] | None = None
        """What is done while that is being sent."""
        self.ended = asyncio.Event()
        """Set once a stream is over here."""

    async def InvokeAsync(self, request: api.InvokeAsyncRequest, context: Any) -> api.InvokeAsyncResponse:  # noqa: N802
        checks = Checks()
        check_spec(checks, request.spec, sync=False, now_us=0, guard=Guard())
        checks.done()
        return api.InvokeAsyncResponse()

    async def GetInvocation(  # noqa: N802
        self, request: api.GetInvocationRequest, context: Any
    ) -> api.GetInvocationResponse:
        if self.error is not None:
            raise self.error
        raise invocation_not_found(request.id)

    async def WaitInvocation(  # noqa: N802
        self, request: api.WaitInvocationRequest, context: Any
    ) -> api.WaitInvocationResponse:
        self.waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def WatchResults(  # noqa: N802
        self, request: api.WatchResultsRequest, context: Any
    ) -> AsyncIterator[api.WatchResultsResponse]:
        try:
            if self.then is not None:
                asyncio.get_running_loop().call_soon(self.then)
            yield self.first
            if self.error is not None:
                raise self.error
            while self.floods:
                yield api.WatchResultsResponse(resume_token="2" * 1024 * 1024)
        finally:
            self.ended.set()

    async def BulkStop(  # noqa: N802
        self, request: api.BulkStopRequest, context: Any
    ) -> AsyncIterator[api.BulkStopResponse]:
        try:
            yield api.BulkStopResponse(matched=2)
            if self.error is not None:
                raise self.error
            await self.go_on.wait()
            yield api.BulkStopResponse(matched=2, stopped=2, done=True)
        finally:
            self.ended.set()


@pytest.fixture
async def failing() -> Failing:
    return Failing()  # type: ignore[abstract]  # the other calls are not made


@pytest.fixture
async def stub(failing: Failing) -> AsyncIterator[invocation_service_pb2_grpc.InvocationServiceAsyncStub]:
    async with served(
        failing, AuthenticationInterceptor(None, Refusals()), ErrorInterceptor(Serving(Calls(), Refusals()), Readers())
    ) as stub:
        yield stub


@contextlib.asynccontextmanager
async def served(
    failing: Failing, *interceptors: grpc.aio.ServerInterceptor
) -> AsyncIterator[invocation_service_pb2_grpc.InvocationServiceAsyncStub]:
    server = grpc.aio.server(interceptors=interceptors)
    invocation_service_pb2_grpc.add_InvocationServiceServicer_to_server(failing, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield invocation_service_pb2_grpc.InvocationServiceStub(channel)
    await server.stop(None)


class Seen:
    """An error as a caller sees it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        told = rpc_status.from_call(error)  # type: ignore[arg-type]
        assert told is not None
        assert told.message == self.message
        self.info = error_details_pb2.ErrorInfo()
        self.bad: error_details_pb2.BadRequest | None = None
        self.retry: error_details_pb2.RetryInfo | None = None
        for detail in told.details:
            if detail.Unpack(self.info):
                continue
            bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(bad):
                self.bad = bad
            elif detail.Unpack(retry):
                self.retry = retry


async def see(stub: Any, **fields: Any) -> Seen:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetInvocation(api.GetInvocationRequest(**fields))
    return Seen(caught.value)


async def test_every_error_says_its_reason(failing: Failing, stub: Any) -> None:
    failing.error = ApiError(
        code=Code.ALREADY_EXISTS,
        reason=ErrorReason.REQUEST_ID_REUSED,
        message="it was used",
        metadata={"request_id": "7"},
    )
    seen = await see(stub)
    assert (seen.code, seen.message) == (grpc.StatusCode.ALREADY_EXISTS, "it was used")
    assert (seen.info.reason, seen.info.domain) == ("REQUEST_ID_REUSED", DOMAIN)
    assert dict(seen.info.metadata) == {"request_id": "7"}
    assert seen.bad is None
    assert seen.retry is None


async def test_bad_fields_are_told_one_by_one(failing: Failing, stub: Any) -> None:
    failing.error = invalid_request(
        [Violation(field="id", description="must not be empty"), Violation(field="größe", description="≤ 3")]
    )
    seen = await see(stub)
    assert seen.code is grpc.StatusCode.INVALID_ARGUMENT
    assert seen.message == "id: must not be empty; größe: ≤ 3"
    assert seen.bad is not None
    assert [(each.field, each.description) for each in seen.bad.field_violations] == [
        ("id", "must not be empty"),
        ("größe", "≤ 3"),
    ]


async def test_what_may_be_tried_again_says_when(failing: Failing, stub: Any) -> None:
    failing.error = unavailable(ErrorReason.STORE_UNAVAILABLE, "the store is away", retry_after=1.5)
    seen = await see(stub)
    assert seen.code is grpc.StatusCode.UNAVAILABLE
    assert seen.retry is not None
    assert seen.retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (function_not_found("resize"), grpc.StatusCode.NOT_FOUND, "FUNCTION_NOT_FOUND"),
        (StoreUnavailableError("the store is away"), grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
        (
            ApiError(code=Code.DEADLINE_EXCEEDED, reason=ErrorReason.DEADLINE_EXCEEDED, message="late"),
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "DEADLINE_EXCEEDED",
        ),
    ],
)
async def test_codes_are_those_of_the_errors(
    failing: Failing, stub: Any, error: ApiError, code: grpc.StatusCode, reason: str
) -> None:
    failing.error = error
    seen = await see(stub)
    assert (seen.code, seen.info.reason, seen.message) == (code, reason, error.message)


@pytest.mark.parametrize("code", Code)
async def test_every_kind_of_error_is_one_of_grpc_s_and_of_http_s(failing: Failing, stub: Any, code: Code) -> None:
    failing.error = ApiError(code=code, reason=ErrorReason.INTERNAL, message="no")
    assert (await see(stub)).code is grpc.StatusCode[code.name]
    assert 400 <= refusal(failing.error).status_code < 600


async def test_unexpected_errors_keep_their_text_to_themselves(failing: Failing, stub: Any) -> None:
    failing.error = KeyError("password=hunter2")
    seen = await see(stub)
    assert (seen.code, seen.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in seen.message


async def test_stream_that_fails_midway_says_why(failing: Failing, stub: Any) -> None:
    failing.error = ApiError(code=Code.RESOURCE_EXHAUSTED, reason=ErrorReason.SLOW_CONSUMER, message="too slow")
    call = stub.WatchResults(api.WatchResultsRequest())
    assert (await call.read()).resume_token == "1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    seen = Seen(caught.value)
    assert (seen.code, seen.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")


async def read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_stream_that_nobody_reads_is_cut_off(
    failing: Failing, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "UNREAD_SECONDS", 0.2)
    failing.floods = True
    call = stub.WatchResults(api.WatchResultsRequest())
    assert (await call.read()).resume_token == "1"
    async with asyncio.timeout(30):
        await failing.ended.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_on(call)
    seen = Seen(caught.value)
    assert (seen.code, seen.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER")
    assert seen.retry is not None


async def stop_many(stub: Any, *, messages: int | None = None) -> None:
    """Stop many; after so many messages give up."""
    call = stub.BulkStop(api.BulkStopRequest(reason="enough"))
    if messages is None:
        async for _ in call:
            pass
        return
    for _ in range(messages):
        await call.read()
    call.cancel()


async def test_streams_that_change_something_are_audited_at_their_ends(failing: Failing, stub: Any) -> None:
    with structlog.testing.capture_logs() as lines:
        await stop_many(stub)
        failing.error = ApiError(code=Code.ABORTED, reason=ErrorReason.BULK_CALL_TAKEN_OVER, message="taken over")
        with pytest.raises(grpc.aio.AioRpcError):
            await stop_many(stub)
        failing.error = KeyError("unexpected")
        with pytest.raises(grpc.aio.AioRpcError):
            await stop_many(stub)
        failing.error = None
        failing.go_on.clear()
        failing.ended.clear()
        await stop_many(stub, messages=1)
        async with asyncio.timeout(30):
            await failing.ended.wait()
    audited = [line for line in lines if line["event"] == "audit"]
    assert {line["action"] for line in audited} == {"BulkStop"}
    assert [line["outcome"] for line in audited] == ["OK", "ABORTED", "INTERNAL", "CANCELLED"]


class Lets(grpc.aio.ServerInterceptor):
    """Lets everybody in as somebody."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        serve_for(self._identity)
        return await continuation(handler_call_details)


async def test_a_key_that_is_revoked_ends_what_waits(failing: Failing) -> None:
    identity = Identity(name="me", scopes=ALL_SCOPES)
    async with served(failing, Lets(identity), ErrorInterceptor(Serving(Calls(), Refusals()), Readers())) as stub:
        wait = stub.WaitInvocation(api.WaitInvocationRequest())
        watch = stub.BulkStop(api.BulkStopRequest())
        failing.go_on.clear()
        async with asyncio.timeout(30):
            await watch.read()
            await failing.waiting.wait()
            identity.state.revoke()
            for ending in (wait, watch.read()):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ending
                seen = Seen(caught.value)
                assert (seen.code, seen.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID")
            await failing.ended.wait()


async def test_where_others_find_no_room_there_is_some_for_operators(failing: Failing) -> None:
    calls, everybody = Calls(), Identity(name="me", scopes=ALL_SCOPES)
    with contextlib.ExitStack() as under_way:
        for _ in range(9_000):
            under_way.enter_context(calls.serving(everybody, operates=False))
        async with served(failing, Lets(everybody), ErrorInterceptor(Serving(calls, Refusals()), Readers())) as stub:
            for call in (
                stub.GetInvocation(api.GetInvocationRequest(id="x")),
                read_on(stub.WatchResults(api.WatchResultsRequest())),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert Seen(caught.value).info.reason == "SERVER_BUSY"
            assert await stub.BulkStop(api.BulkStopRequest()).read() == api.BulkStopResponse(matched=2)


@pytest.mark.parametrize("size", [1, 3 * 1024 * 1024])
async def test_a_key_that_is_revoked_ends_a_stream_whose_first_message_is_being_sent(
    failing: Failing, size: int
) -> None:
    identity = Identity(name="me", scopes=ALL_SCOPES)
    failing.first = api.WatchResultsResponse(resume_token="1" * size)
    failing.then = identity.state.revoke
    async with (
        asyncio.timeout(30),
        served(failing, Lets(identity), ErrorInterceptor(Serving(Calls(), Refusals()), Readers())) as stub,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_on(stub.WatchResults(api.WatchResultsRequest()))
    assert Seen(caught.value).info.reason == "KEY_INVALID"


async def test_a_key_that_ends_ends_what_waits(failing: Failing) -> None:
    identity = Identity(name="me", scopes=ALL_SCOPES, expire_us=now_us() + 300_000)
    async with served(failing, Lets(identity), ErrorInterceptor(Serving(Calls(), Refusals()), Readers())) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.WaitInvocation(api.WaitInvocationRequest(), timeout=30)
    seen = Seen(caught.value)
    assert (seen.code, seen.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_EXPIRED")


async def test_a_key_that_is_revoked_ends_a_stream_and_what_it_does(failing: Failing) -> None:
    identity = Identity(name="me", scopes=ALL_SCOPES)
    async with served(failing, Lets(identity), ErrorInterceptor(Serving(Calls(), Refusals()), Readers())) as stub:
        with structlog.testing.capture_logs() as lines:
            failing.go_on.clear()
            call = stub.BulkStop(api.BulkStopRequest())
            await call.read()
            identity.state.revoke()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            async with asyncio.timeout(30):
                await failing.ended.wait()
    assert Seen(caught.value).code is grpc.StatusCode.UNAUTHENTICATED
    assert [line["outcome"] for line in lines if line["event"] == "audit"] == ["UNAUTHENTICATED"]


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f600"])
async def test_error_fits_into_its_headers_however_bad_the_request(stub: Any, letter: str) -> None:
    labels = {f"{number}" + letter * 1000: letter * 1000 for number in range(limits.MAX_LABELS)}
    spec = invocation_pb2.InvocationSpec(function=letter * 10_000, labels=labels)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.InvokeAsync(api.InvokeAsyncRequest(spec=spec))
    seen = Seen(caught.value)
    assert seen.code is grpc.StatusCode.INVALID_ARGUMENT
    assert seen.bad is not None
    assert seen.bad.field_violations[0].field == "spec.function"


async def test_error_about_a_very_long_id_fits_too(stub: Any) -> None:
    seen = await see(stub, id="\U0001f600" * 60_000)
    assert (seen.code, seen.info.reason) == (grpc.StatusCode.NOT_FOUND, "INVOCATION_NOT_FOUND")
