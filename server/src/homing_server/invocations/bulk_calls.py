"""Calls about many: how they begin, or go on where an earlier one broke off, and how they tell how far they are."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import structlog
from google.protobuf.message import Message
from sqlalchemy import Connection

from homing.v1 import dead_letter_service_pb2, invocation_service_pb2
from homing_core import limits
from homing_core.clock import now_us
from homing_server.auth.identity import Identity
from homing_server.errors import ErrorReason, unavailable
from homing_server.store import bulk_calls as stored
from homing_server.store import schema
from homing_server.store.bulk_calls import BulkCall
from homing_server.store.engine import Database
from homing_server.store.sequences import read_counters
from homing_server.tasks import Tasks

_log = structlog.get_logger(__name__)

T = TypeVar("T")
ResponseT = TypeVar("ResponseT", bound=Message)
BulkRequest = (
    invocation_service_pb2.BulkStopRequest
    | invocation_service_pb2.BulkRerunRequest
    | dead_letter_service_pb2.RedriveDeadLettersRequest
    | dead_letter_service_pb2.PurgeDeadLettersRequest
)

_PACE_SECONDS: Final = 0.2
"""So many seconds are between two messages at least, before the last one."""
_FORGET_INTERVAL_SECONDS: Final = 60.0
_CLOSED_POLL_SECONDS: Final = 0.5


class BulkCalls:
    """Carries out calls about many, batch by batch, for as long as their callers listen."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        """Prepare to serve.

        :param tasks: Bring to its end what was begun when a caller goes away.
        """
        self._database = database
        self._tasks = tasks
        self._closed = False

    def close(self) -> None:
        """End all calls after their present batches, since this server stops: they go on at another one."""
        self._closed = True

    async def run(
        self,
        call: BulkCall,
        *,
        caller: Identity,
        dry_run: bool,
        count: Callable[[Connection, BulkCall], Mapping[str, int]],
        batches: Callable[[BulkCall], AsyncGenerator[BulkCall, None]],
        response: Callable[..., ResponseT],
    ) -> AsyncGenerator[ResponseT, None]:
        """Begin a call, or go on where an earlier one with its request id broke off, and tell how far it is.

        :param dry_run: Whether to count only.
        :param count: Counts, for a call that begins, what there is to do.
        :param batches: Do it, and yield the call after each batch.
        :param response: Makes a message of the counts and of whether they are all.
        :raises ApiError: ALREADY_EXISTS: the earlier call had other content; ABORTED: a later one goes on;
            UNAUTHENTICATED: the caller's key was revoked meanwhile; UNAVAILABLE: the server stops, or its store is
            away.
        """
        call = await self._begin(call, dry_run=dry_run, count=count)
        yield response(**call.counts, done=call.done)
        if call.done:
            return
        reported = time.monotonic()
        before = call.dealt_with
        async with contextlib.aclosing(batches(call)) as progress:
            async for call in progress:
                if time.monotonic() - reported >= _PACE_SECONDS:
                    yield response(**call.counts, done=False)
                    reported = time.monotonic()
                await self._keep_rate(caller, call.dealt_with - before)
                before = call.dealt_with
                if self._closed:
                    raise unavailable(
                        ErrorReason.SERVER_STOPPING, "the server stops; call again with the same request_id"
                    )
                caller.check_in_force()
        call = replace(call, done=True)
        await self._database.write(stored.advance, call, now_us=now_us())
        _log.info("bulk_call_done", method=call.method, request_id=call.request_id, **call.counts)
        yield response(**call.counts, done=True)

    async def whole(self, batch: Coroutine[Any, Any, T]) -> T:
        """Do a batch to its end, even where the caller goes away meanwhile: what was committed is announced."""
        return await self._tasks.finish(batch, "batch")

    async def _keep_rate(self, caller: Identity, number: int) -> None:
        """Count so many records as calls of their caller, once the rate of its key allows them."""
        while number and not self._closed:
            wait = caller.take_or_wait(number)
            if not wait:
                return
            await asyncio.sleep(min(wait, _CLOSED_POLL_SECONDS))

    async def forget(self) -> None:
        """Forget the calls whose request ids are remembered no longer. One step of a loop."""
        await asyncio.sleep(_FORGET_INTERVAL_SECONDS)
        before_us = now_us() - int(limits.BULK_CALL_KEPT * 1e6)
        if await self._database.read(stored.any_forgettable, before_us=before_us):
            await self._database.write(stored.forget, before_us=before_us)

    async def _begin(
        self, call: BulkCall, *, dry_run: bool, count: Callable[[Connection, BulkCall], Mapping[str, int]]
    ) -> BulkCall:
        earlier = await self._database.read(stored.find, call)
        if earlier is None:
            call = await self._database.read(_counted, call, count)
        if dry_run:
            return replace(call, done=True)
        return await self._database.write(stored.begin, call, now_us=now_us())


def bulk_call(request: BulkRequest, *, caller: Identity) -> BulkCall:
    """Return the call that begins with a request, as it came: with the filter as the caller gave it."""
    content = copy.deepcopy(request)
    content.ClearField("request_id")
    return BulkCall(
        caller=caller.name,
        request_id="" if request.dry_run else request.request_id,
        method=request.DESCRIPTOR.name.removesuffix("Request"),
        fingerprint=hashlib.sha256(content.SerializeToString(deterministic=True)).digest(),
        begin_us=now_us(),
    )


def _counted(
    connection: Connection, call: BulkCall, count: Callable[[Connection, BulkCall], Mapping[str, int]]
) -> BulkCall:
    """Return a call with what there is now, all in one state of the store."""
    call = replace(call, last_seq=read_counters(connection)[schema.RESULT_SEQ])
    return replace(call, counts=count(connection, call))
