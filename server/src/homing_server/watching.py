"""Serves watches: what a resume token means, which results match, when a bookmark is due and a reader too slow."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc

from homing.v1 import invocation_service_pb2 as api
from homing_core.clock import now_us
from homing_server.errors import ApiError, not_served, resume_token_expired
from homing_server.filters import check_filter, matcher
from homing_server.metrics import Metrics
from homing_server.store import schema
from homing_server.store.counters import read_counters
from homing_server.store.engine import Database
from homing_server.store.records import timestamp
from homing_server.tokens import decode_token, encode_token
from homing_server.validation import Checks
from homing_server.watch import WatchHub

_BOOKMARK_INTERVAL = 10.0
_SLOW = 30.0
"""A reader that does not take a message for so many seconds is cut off."""


class Watching:
    """Opens watches."""

    def __init__(self, database: Database, hub: WatchHub, metrics: Metrics) -> None:
        self._database = database
        self._hub = hub
        self._metrics = metrics

    async def watch(self, request: api.WatchResultsRequest) -> AsyncIterator[api.WatchResultsResponse]:
        """Yield a bookmark, then the results that match as they come, with bookmarks in between.

        :raises ApiError: INVALID_ARGUMENT; OUT_OF_RANGE for a token that cannot be resumed from; RESOURCE_EXHAUSTED
            for a reader that does not keep up.
        """
        if request.include_transitions:
            raise not_served("include_transitions")
        checks = Checks()
        check_filter(checks, request.filter)
        checks.done()
        functions = frozenset(request.filter.functions)
        seq = await self._start(request.resume_token, functions)
        matches = matcher(request.filter)
        self._metrics.watchers.inc()
        try:
            yield self._bookmark(seq)
            told = time.monotonic()
            async for page in self._hub.results(seq, functions):
                for result in page:
                    seq = result.seq
                    if matches(result.invocation):
                        offered = time.monotonic()
                        yield api.WatchResultsResponse(resume_token=self._token(seq), invocation=result.invocation)
                        told = time.monotonic()
                        if told - offered > _SLOW:
                            raise _slow()
                if time.monotonic() - told >= _BOOKMARK_INTERVAL:
                    yield self._bookmark(seq)
                    told = time.monotonic()
                if not page:
                    await self._hub.moved_past(seq, max(0.0, told + _BOOKMARK_INTERVAL - time.monotonic()))
        finally:
            self._metrics.watchers.dec()

    async def _start(self, resume_token: str, functions: frozenset[str]) -> int:
        # The hub may be behind the store; a watch from now on must not begin with what has long ended.
        last = (await self._database.read(read_counters))[schema.RESULT_SEQ]
        if not resume_token:
            return last
        token = decode_token("results", resume_token, field="resume_token")
        if token["store"] != self._database.identity:
            raise resume_token_expired("it belongs to another store")
        seq = int(token["seq"])
        if seq > last:
            # The store was put back to an earlier state: it gives these numbers again.
            raise resume_token_expired("the store is not as far any more")
        await self._hub.check_kept(seq, functions)
        return seq

    def _bookmark(self, seq: int) -> api.WatchResultsResponse:
        bookmark = api.Bookmark(time=timestamp(now_us()))
        return api.WatchResultsResponse(resume_token=self._token(seq), bookmark=bookmark)

    def _token(self, seq: int) -> str:
        return encode_token("results", {"store": self._database.identity, "seq": seq})


def _slow() -> ApiError:
    return ApiError(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="SLOW_CONSUMER",
        message=f"the watch was not read for {_SLOW:g} s; resume after the last token",
        retry_after=1.0,
    )
