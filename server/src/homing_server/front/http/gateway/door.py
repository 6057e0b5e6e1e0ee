"""The gateway's ASGI application: a function is invoked now or later, and what was to be done later is stopped."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from starlette.types import Receive, Scope, Send

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.gateway import target_of
from homing_core.guard import Guard
from homing_core.ids import new_id, times_of_ids
from homing_server.auth.identity import Identity
from homing_server.cluster.presence import Presence
from homing_server.errors import ApiError, Code, ErrorReason, function_not_found, unavailable
from homing_server.front.http.areas import Area
from homing_server.front.http.gateway.answers import Answer, answer_of, answer_of_error, head_of, is_whole, refused
from homing_server.front.http.gateway.bodies import LARGEST, Bodies, BodyTooLargeError
from homing_server.front.http.gateway.cancels import Cancels
from homing_server.front.http.gateway.headers import Asked, BadHeaderError, asked_by, text_of
from homing_server.front.http.gateway.metrics import GatewayMetrics
from homing_server.front.http.gateway.options import (
    Acceptance,
    add_async_options,
    add_common_options,
    check_sync_options,
    is_async_by_header,
)
from homing_server.front.http.origins import comes_from_elsewhere
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Accepted, Admission
from homing_server.invocations.answer_stream import AnswerStream
from homing_server.invocations.sync_calls import SyncCalls
from homing_server.payloads.blobs import Blobs
from homing_server.rules.validation import Checks, check_spec
from homing_server.watch.hub import WatchHub

SYNC: Final = "/function/"
ASYNC: Final = "/async-function/"

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"})
_ALLOWED: Final = (b"allow", ", ".join(sorted(_METHODS)).encode())
_INVOKE: Final = "/homing.v1.InvocationService/Invoke"
_INVOKE_ASYNC: Final = "/homing.v1.InvocationService/InvokeAsync"
_TOLD_ABOVE: Final = frozenset({Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED})
"""Refusals that the root tells, since it tells the audit too."""
_Refusals: Final = (ApiError, BadHeaderError, BodyTooLargeError)
_GONE: Final = 499
"""What is counted where a client went away, as nginx has it."""
_WORKER_SECONDS: Final = 5.0
"""So long a call waits for a worker where there is none."""
_RETRY_SECONDS: Final = 2.0
_WORKER_POLL_SECONDS: Final = 0.05


@dataclass(kw_only=True, slots=True)
class _Request:
    """A request of a known function."""

    scope: Scope
    receive: Receive
    send: Send
    function: str
    path: str
    asked: Asked
    identity: Identity

    @property
    def to_head(self) -> bool:
        """Whether the head of an answer is asked for, without its body."""
        return bool(self.scope["method"] == "HEAD")


class Gateway:
    """Serves `/function/` and `/async-function/`."""

    def __init__(
        self,
        *,
        admission: Admission,
        bodies: Bodies,
        blobs: Blobs,
        cancels: Cancels,
        catalog: Catalog,
        guard: Guard,
        hub: WatchHub,
        metrics: GatewayMetrics,
        presence: Presence,
        sync_calls: SyncCalls,
        sync_timeout: float,
        needs_keys: bool,
    ) -> None:
        """Prepare to serve.

        :param sync_timeout: Seconds after which a synchronous caller is answered that it took too long.
        :param needs_keys: Whether callers need keys; else pages of browsers are looked at.
        """
        self._admission = admission
        self._bodies = bodies
        self._blobs = blobs
        self._cancels = cancels
        self._catalog = catalog
        self._guard = guard
        self._hub = hub
        self._metrics = metrics
        self._sync_calls = sync_calls
        self._presence = presence
        self._sync_timeout = sync_timeout
        self._needs_keys = needs_keys
        self.own_origin = ""
        """Where this server is, as workers reach it: callbacks that go there are its own."""

    @property
    def areas(self) -> list[Area]:
        """What is served here."""
        return [
            Area(path=SYNC, app=self._serve_sync, anonymous=True),
            Area(path=ASYNC, app=self._serve_async, anonymous=True),
        ]

    async def _serve_sync(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send, later=False)

    async def _serve_async(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send, later=True)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, *, later: bool) -> None:
        try:
            answer = await self._answer(scope, receive, send, later=later)
        except _Refusals as error:
            if isinstance(error, ApiError) and error.code in _TOLD_ABOVE:
                raise
            answer = _refusal(error)
        if not answer.sent:
            await answer.send(send, self._blobs)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, *, later: bool) -> Answer:
        """Do what a request asks for.

        :raises ApiError: It cannot be done.
        :raises BadHeaderError: A header cannot be heeded.
        :raises BodyTooLargeError: Its body is over the limit.
        """
        method = scope["method"]
        if method not in _METHODS:
            return refused(405, f"the method {method} is not served", _ALLOWED)
        if not self._needs_keys and comes_from_elsewhere(scope["headers"]):
            return refused(403, "pages of other sites may not invoke functions of a server that needs no key")
        path = text_of(scope["raw_path"])
        identity: Identity = scope["state"]["identity"]
        if later and method == "DELETE":
            await self._cancels.cancel(path.removeprefix(ASYNC), caller=identity)
            return Answer(status=202, headers=[])
        if later and method != "POST":
            return refused(405, "asynchronous invocations are made by POST", (b"allow", b"DELETE, POST"))
        target = target_of(path)
        if target is None:
            raise function_not_found(path.split("/", 3)[2])
        client = scope["client"]
        asked = asked_by(
            scope["headers"],
            client=client[0] if client else "",
            scheme=scope["scheme"],
            needs_keys=self._needs_keys,
        )
        later = is_async_by_header(asked.options) or later
        identity.check_call(_INVOKE_ASYNC if later else _INVOKE)
        await self._catalog.check_invoke(target.function, identity)
        await self._catalog.get(target.function)
        request = _Request(
            scope=scope,
            receive=receive,
            send=send,
            function=target.function,
            path=target.path,
            asked=asked,
            identity=identity,
        )
        measured = self._metrics.of(target.function)
        begun, code = measured.begin(), _GONE
        try:
            answer = await (self._accept(request) if later else self._call(request))
            code = answer.status
        except _Refusals as error:
            code = _refusal(error).status
            raise
        finally:
            measured.end(code, begun)
        return answer

    async def _call(self, request: _Request) -> Answer:
        """Run a function and wait for its answer."""
        asked, identity = request.asked, request.identity
        check_sync_options(asked.options)
        spec = self._spec(request)
        identity.check_options(spec)
        if not spec.retry_policy.HasField("max_attempts"):
            # Whoever waits tries again as they see fit.
            spec.retry_policy.max_attempts = 1
        checks = Checks()
        check_spec(checks, spec, sync=True, now_us=now_us(), guard=self._guard)
        checks.done()
        await self._bodies.read(spec.payload, request.receive, length=asked.length, caller=identity.name)
        invocation_id = new_id()
        if spec.payload.HasField("blob"):
            await self._blobs.hold(invocation_id, spec.payload)
        await self._until_worker()
        task = asyncio.current_task()
        assert task is not None, "requests are served in tasks"
        # Whoever goes away stops what was done for them.
        request.scope["state"]["connection"].on_disconnect(task.cancel)
        start_ns = time.time_ns()
        traced = _traced(spec.call_id or invocation_id, start_ns)
        try:
            async with self._sync_calls.stream(
                invocation_id,
                spec,
                timeout=self._sync_timeout,
                caller=identity,
                traceparent=asked.traceparent[:64],
            ) as stream:
                if stream.ended is None and stream.head is not None:
                    answer = head_of(stream.head, asked_type=asked.content_type)
                    answer.headers.extend(traced)
                    await self._pass_on(answer, stream, request)
                    return answer
                invocation = stream.invocation
            answer = answer_of(invocation, asked_type=asked.content_type, to_head=request.to_head)
            traced = _traced(spec.call_id or invocation_id, invocation.create_time.ToNanoseconds())
        except ApiError as error:
            answer = answer_of_error(self._explained(error, request.function))
        answer.headers.extend(traced)
        return answer

    async def _pass_on(self, answer: Answer, stream: AnswerStream, request: _Request) -> None:
        """Send an answer as it comes, and break the connection off where the answer breaks off."""
        send = request.send
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        try:
            async with aclosing(stream.parts()) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except ApiError:
            whole = False
        else:
            whole = is_whole(stream.invocation)
        if whole:
            await send({"type": "http.response.body", "body": b""})
        else:
            request.scope["state"]["connection"].force_close()

    async def _accept(self, request: _Request) -> Answer:
        """Have a function run later, and maybe wait for it."""
        asked, identity = request.asked, request.identity
        spec = self._spec(request)
        acceptance = add_async_options(spec, asked.options)
        if spec.callback.url:
            spec.callback.url = self._of_gateway(spec.callback.url, asked)
        await self._bodies.read(spec.payload, request.receive, length=asked.length, caller=identity.name)
        client = request.scope["client"]
        accepted = await self._admission.accept(
            spec,
            request_id=acceptance.request_id,
            caller=identity,
            traceparent=asked.traceparent[:64],
            connection=lambda: f"{client[0]}:{client[1]}" if client else "",
        )
        if accepted.draft is None and acceptance.task_id == acceptance.request_id != "":
            return refused(409, f"there is an invocation with the id {acceptance.task_id} already")
        answer = Answer(status=202, headers=[])
        if acceptance.wait and (identity.known or accepted.draft is not None):
            answer = await self._waited(accepted, acceptance, asked.content_type)
        answer.headers.extend(_traced(spec.call_id or accepted.id, _accepted_ns(accepted)))
        answer.headers.append((b"location", f"/v1/invocations/{accepted.id}".encode()))
        if acceptance.task_id:
            answer.headers.append((b"x-fc-async-task-id", acceptance.task_id.encode()))
        return answer

    async def _waited(self, accepted: Accepted, acceptance: Acceptance, asked_type: str) -> Answer:
        """Return the outcome of what was accepted where it ends within the time, else that it was accepted."""
        invocation = await self._hub.wait_ended(accepted.id, acceptance.wait)
        if invocation is None or not invocation.HasField("end_time"):
            return Answer(status=202, headers=[])
        answer = answer_of(invocation, asked_type=asked_type)
        answer.headers.append((b"preference-applied", b"wait=%d" % acceptance.wait))
        return answer

    def _of_gateway(self, url: str, asked: Asked) -> str:
        """Return a URL with the host `gateway` where it leads here: such a callback needs no key, and no address.

        It does where it goes to where workers reach this server, or to a function by the name that was asked for.
        """
        if self.own_origin and url.startswith(self.own_origin + "/"):
            return "http://gateway" + url.removeprefix(self.own_origin)
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        asks_here = host and host in {asked.host, asked.forwarded.get("x-forwarded-host")}
        if scheme in {"http", "https"} and asks_here and f"/{path}".startswith((SYNC, ASYNC)):
            return f"http://gateway{slash}{path}"
        return url

    def _spec(self, request: _Request) -> api.InvocationSpec:
        """Return what is to run, the body and what is for asynchronous invocations apart."""
        asked, scope = request.asked, request.scope
        spec = api.InvocationSpec(function=request.function, call_id=asked.call_id)
        spec.payload.content_type = asked.content_type
        http = spec.http
        http.method, http.path, http.query = scope["method"], request.path, text_of(scope["query_string"])
        add = http.headers.add
        for name, value in asked.passed_on:
            add(name=name, value=value)
        if asked.options:
            add_common_options(spec, asked.options)
        return spec

    async def _until_worker(self) -> None:
        """Wait a little for a worker where there is none.

        :raises ApiError: UNAVAILABLE: none has come.
        """
        until = time.monotonic() + _WORKER_SECONDS
        while not self._presence.workers:
            if time.monotonic() > until:
                raise unavailable(ErrorReason.WORKER_LOST, "there is no worker", retry_after=_RETRY_SECONDS)
            await asyncio.sleep(_WORKER_POLL_SECONDS)

    def _explained(self, error: ApiError, function: str) -> ApiError:
        """Return an error, or that there is no worker where that is why a call came to nothing."""
        if error.code is Code.DEADLINE_EXCEEDED and not self._presence.serves(function):
            return unavailable(ErrorReason.WORKER_LOST, error.message, retry_after=_RETRY_SECONDS)
        return error


def _refusal(error: Exception) -> Answer:
    """Return what tells a client why nothing was done."""
    if isinstance(error, ApiError):
        return answer_of_error(error)
    if isinstance(error, BodyTooLargeError):
        return refused(413, f"the body must have at most {LARGEST} bytes (64 MiB)", (b"connection", b"close"))
    return refused(400, str(error))


def _traced(call_id: str, start_ns: int) -> list[tuple[bytes, bytes]]:
    return [(b"x-call-id", call_id.encode()), (b"x-start-time", b"%d" % start_ns)]


def _accepted_ns(accepted: Accepted) -> int:
    """Return when an invocation was accepted, in nanoseconds since the epoch."""
    if accepted.draft is not None:
        return accepted.draft.create_us * 1000
    # Ids tell the time.
    first, _ = times_of_ids(accepted.id) or (0, 0)
    return first * 1000
