"""Accepts asynchronous invocations: checks them, commits them in groups, then leaves them to the dispatcher.

Calls are idempotent where they have a request id: a repetition is found by it and its caller, and answered with the
invocation that the first one made (deduplication, P7).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from homing.v1 import invocation_pb2 as api
from homing.v1.invocation_service_pb2 import InvokeAsyncRequest
from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.destinations import function_of
from homing_core.guard import Guard
from homing_core.ids import new_id
from homing_core.lifecycle import Custody
from homing_server.auth.identity import Identity
from homing_server.auth.visibility import Visibility
from homing_server.errors import (
    ApiError,
    Code,
    ErrorReason,
    blob_not_found,
    function_not_found,
    request_id_reused,
    unavailable,
)
from homing_server.functions.catalog import Catalog
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.invocations.fair_queue import FairQueue
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.rules.bounds import check_bounds
from homing_server.rules.validation import Checks, check_spec
from homing_server.store.accept import Draft, Outcome, Verdict, accept, max_age_us
from homing_server.store.dispatch import Work, work_of
from homing_server.store.engine import Database

T = TypeVar("T")

_GROUP_SIZE = 500
_ANSWERED_AT_ONCE = 4
"""gRPC takes in one call in each turn of the event loop: hundreds of answers in one would keep all who come waiting."""
_OF_THE_WAY = frozenset(
    {
        *(
            "b3",
            "baggage",
            "cdn-loop",
            "forwarded",
            "sentry-trace",
            "true-client-ip",
            "tracestate",
            "uber-trace-id",
            "via",
        ),
        *("x-amzn-trace-id", "x-client-ip", "x-cloud-trace-context", "x-original-forwarded-for", "x-real-ip"),
        *("x-request-id", "x-scheme"),
    }
)
_BEGIN_OF_THE_WAY = ("cf-", "x-b3-", "x-datadog-", "x-envoy-", "x-forwarded-")
"""Headers that tell of the way that a request took, and of its trace: another try may take another way. Proxies and
load balancers add them, many with a new value for each request."""
CANNOT_RUN_AGAIN = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED})
"""What it needs is gone, or what it asks for is not allowed, not any more or not to this caller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """An invocation that is durable."""

    id: str
    draft: Draft | None
    """What a new one was made of; None where an earlier call made it: it may be anywhere in its life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rerun:
    """An ended invocation that is to run again."""

    of: str
    """Its id."""
    spec: api.InvocationSpec
    request_id: str
    due_us: int
    """When it is to start, in microseconds since the epoch; what is past means now."""
    new_payload: bool = False
    """Whether it gets another payload than the ended one had, of the caller's choice."""


class Admission:
    """Takes invocations in. Those that arrive while a group is being committed form the next group."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        dispatcher: Dispatcher,
        metrics: Metrics,
        *,
        blobs: Blobs,
        guard: Guard,
    ) -> None:
        """Prepare to accept.

        :param guard: Decides where outcomes may be delivered to.
        """
        self._database = database
        self._blobs = blobs
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._guard = guard
        self._visibility = Visibility(database)
        self._waiting: list[tuple[Draft, asyncio.Future[Verdict]]] = []
        self._arrived = asyncio.Event()
        self._hooks: list[Callable[[], None]] = []
        self._queue = FairQueue()

    def on_accepted(self, hook: Callable[[], None]) -> None:
        """Call a hook after each commit."""
        self._hooks.append(hook)

    async def accept(
        self,
        spec: api.InvocationSpec,
        *,
        request_id: str,
        caller: Identity,
        traceparent: str,
        connection: Callable[[], str],
    ) -> Accepted:
        """Make an invocation durable.

        :param connection: Returns what tells the caller's connection from others.
        :raises ApiError: The request is bad, its function does not exist, its request id stands for another request,
            or the store cannot be written.
        """
        async with self._queue.turn(connection):
            draft = await self._draft(spec, request_id=request_id, caller=caller, traceparent=traceparent)
            return _accepted(draft, await self._submit(draft))

    async def accept_rerun(self, rerun: Rerun, *, caller: Identity, traceparent: str) -> Accepted:
        """Make a new invocation of an ended one durable.

        :raises ApiError: As where it were asked for anew.
        """
        draft = await self._draft_rerun(rerun, caller=caller, traceparent=traceparent)
        return _accepted(draft, await self._submit(draft))

    async def accept_batch(
        self,
        requests: Sequence[InvokeAsyncRequest],
        *,
        caller: Identity,
        traceparent: str,
        connection: Callable[[], str],
    ) -> list[Accepted | ApiError]:
        """Make invocations durable; tell of each, in order, how it was accepted or why it was refused.

        :param connection: Returns what tells the caller's connection from others.
        """
        async with self._queue.turn(connection, len(requests)):
            return await self._accept_all(requests, caller=caller, traceparent=traceparent)

    async def _accept_all(
        self, requests: Sequence[InvokeAsyncRequest], *, caller: Identity, traceparent: str
    ) -> list[Accepted | ApiError]:
        submitted: list[tuple[Draft, asyncio.Future[Verdict]] | ApiError] = []
        for request in requests:
            try:
                check_bounds(request)
                draft = await self._draft(
                    request.spec, request_id=request.request_id, caller=caller, traceparent=traceparent
                )
                submitted.append((draft, self._submit(draft)))
            except ApiError as error:
                submitted.append(error)
        outcomes: list[Accepted | ApiError] = []
        for item in submitted:
            try:
                outcomes.append(item if isinstance(item, ApiError) else _accepted(item[0], await item[1]))
            except ApiError as error:
                outcomes.append(error)
        return outcomes

    async def draft_reruns(self, reruns: Sequence[Rerun], *, caller: Identity, traceparent: str) -> list[Draft]:
        """Return what :meth:`commit` makes new invocations of, without those that cannot run again.

        :raises ApiError: One is refused for another reason.
        """
        drafts = []
        for rerun in reruns:
            try:
                drafts.append(await self._draft_rerun(rerun, caller=caller, traceparent=traceparent))
            except ApiError as error:
                if error.code not in CANNOT_RUN_AGAIN:
                    raise
        return drafts

    async def commit(self, drafts: Sequence[Draft], also: Callable[[Connection, Sequence[Verdict]], T]) -> T:
        """Make drafts durable, together with something else, and have them sent; return what that returns.

        :param also: What else is to be done in the transaction, given what became of each draft; where it raises, no
            draft is accepted.
        :raises StoreUnavailableError: The store could not be written.
        """
        for draft in drafts:
            self._dispatcher.reserve(draft)

        def transaction(connection: Connection) -> tuple[Sequence[Verdict], T]:
            verdicts = accept(connection, drafts)
            return verdicts, also(connection, verdicts)

        try:
            verdicts, result = await self._database.write(transaction)
        except BaseException:
            for draft in drafts:
                self._dispatcher.release(draft)
            raise
        self._metrics.accepted.inc(sum(1 for verdict in verdicts if verdict.outcome is Outcome.ACCEPTED))
        self._hand_on(drafts, verdicts)
        for hook in self._hooks:
            hook()
        return result

    async def commit_group(self) -> None:
        """Wait for invocations and commit all that have come. One step of the admission's loop."""
        await self._arrived.wait()
        group, self._waiting = self._waiting[:_GROUP_SIZE], self._waiting[_GROUP_SIZE:]
        if not self._waiting:
            self._arrived.clear()
        try:
            verdicts = await self.commit([draft for draft, _ in group], lambda _, verdicts: verdicts)
        except BaseException as error:
            failure = (
                error
                if isinstance(error, ApiError)
                else unavailable(ErrorReason.ACCEPT_FAILED, "the outcome is unknown")
            )
            for _, decided in group:
                if not decided.done():
                    decided.set_exception(failure)
            raise
        decisions = [(decided, verdict) for (_, decided), verdict in zip(group, verdicts, strict=True)]
        try:
            for place in range(0, len(decisions), _ANSWERED_AT_ONCE):
                if place:
                    await asyncio.sleep(0)
                _answer(decisions[place : place + _ANSWERED_AT_ONCE])
        finally:
            # Where this is cancelled in between, the others are accepted all the same.
            _answer(decisions)

    def _hand_on(self, drafts: Sequence[Draft], verdicts: Sequence[Verdict]) -> None:
        work = []
        for draft, verdict in zip(drafts, verdicts, strict=True):
            if verdict.outcome is not Outcome.ACCEPTED:
                self._dispatcher.release(draft)
            elif draft.record.custody is Custody.SENT:
                message = work_of(
                    draft.id,
                    draft.record,
                    draft.spec,
                    function_revision=verdict.function_revision,
                    create_us=draft.create_us,
                    start_by_us=draft.start_by_us,
                    traceparent=draft.traceparent,
                    depth=draft.depth,
                )
                work.append(Work(message=message, size=draft.size))
            else:
                self._dispatcher.wake(draft.spec.function, draft.record.due_us)
        self._dispatcher.send(work)

    def _submit(self, draft: Draft) -> asyncio.Future[Verdict]:
        decided: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((draft, decided))
        self._arrived.set()
        return decided

    async def _draft_rerun(self, rerun: Rerun, *, caller: Identity, traceparent: str) -> Draft:
        return await self._draft(
            rerun.spec,
            request_id=rerun.request_id,
            caller=caller,
            traceparent=traceparent,
            rerun_of=rerun.of,
            due_us=rerun.due_us,
            new_payload=rerun.new_payload,
        )

    async def _draft(
        self,
        spec: api.InvocationSpec,
        *,
        request_id: str,
        caller: Identity,
        traceparent: str,
        rerun_of: str = "",
        due_us: int = 0,
        new_payload: bool = True,
    ) -> Draft:
        await self._catalog.check_invoke(spec.function, caller)
        caller.check_options(spec)
        time_us = now_us()
        checks = Checks()
        checks.request_id(request_id)
        check_spec(checks, spec, sync=False, now_us=time_us, guard=self._guard)
        checks.done()
        function = await self._catalog.get(spec.function)
        if spec.on_success or spec.on_failure or spec.HasField("callback"):
            await self._check_functions(spec, caller)
        if spec.payload.HasField("blob"):
            if new_payload:
                await self._visibility.check_read_blob(spec.payload.blob.id, caller)
            await self._blobs.resolve(spec.payload)
        if spec.HasField("delay"):
            due_us = time_us + spec.delay.ToMicroseconds()
        elif spec.HasField("schedule_time"):
            due_us = spec.schedule_time.ToMicroseconds()
        due_us = max(time_us, due_us)
        return Draft(
            id=new_id(time_us),
            spec=spec,
            record=lifecycle.invocation.accepted(time_us=time_us, due_us=due_us),
            caller=caller.name,
            request_id=request_id,
            fingerprint=_fingerprint(spec, rerun_of) if request_id else b"",
            create_us=time_us,
            start_by_us=due_us + max_age_us(spec, function),
            traceparent=traceparent,
            rerun_of=rerun_of,
        )

    async def _check_functions(self, spec: api.InvocationSpec, caller: Identity) -> None:
        """Check that the functions exist that an outcome is to go to, and that the caller may invoke them.

        :raises ApiError: INVALID_ARGUMENT; PERMISSION_DENIED.
        """
        checks = Checks()
        uris = {"spec.callback.url": spec.callback.url}
        for field in ("on_success", "on_failure"):
            for number, destination in enumerate(getattr(spec, field)):
                uris[f"spec.{field}[{number}].uri"] = destination.uri
        for field, uri in uris.items():
            name = function_of(uri)
            try:
                if name:
                    caller.check_destination(await self._catalog.get(name))
            except ApiError as error:
                if error.code is not Code.NOT_FOUND:
                    raise
                caller.check_function(name)
                checks.add(field, f"names a function that does not exist, {name!r}")
        checks.done()


def _fingerprint(spec: api.InvocationSpec, rerun_of: str) -> bytes:
    """Return what is the same in all requests that one request id may stand for.

    A stored body counts by its digest, and by which way a request came does not count.
    """
    own = [header for header in spec.http.headers if not _is_of_the_way(header.name.lower())]
    of_the_way = len(own) < len(spec.http.headers)
    if spec.payload.HasField("blob") or of_the_way:
        content = api.InvocationSpec()
        content.CopyFrom(spec)
        if content.payload.HasField("blob"):
            content.payload.blob.ClearField("id")
        if of_the_way:
            del content.http.headers[:]
            content.http.headers.extend(own)
        spec = content
    return hashlib.sha256(spec.SerializeToString(deterministic=True) + rerun_of.encode()).digest()


def _is_of_the_way(name: str) -> bool:
    return name in _OF_THE_WAY or name.startswith(_BEGIN_OF_THE_WAY)


def _accepted(draft: Draft, verdict: Verdict) -> Accepted:
    """Return what a verdict means to the caller.

    :raises ApiError: It means that the invocation is refused.
    """
    match verdict.outcome:
        case Outcome.NO_FUNCTION:
            raise function_not_found(draft.spec.function)
        case Outcome.NO_BLOB:
            raise blob_not_found(draft.blob_id)
        case Outcome.CONFLICT:
            raise request_id_reused(draft.request_id, invocation_id=verdict.id)
    return Accepted(id=verdict.id, draft=None if verdict.outcome is Outcome.DUPLICATE else draft)


def _answer(decisions: Iterable[tuple[asyncio.Future[Verdict], Verdict]]) -> None:
    """Tell those who wait what became of their drafts, unless they know or are gone."""
    for decided, verdict in decisions:
        if not decided.done():
            decided.set_result(verdict)
