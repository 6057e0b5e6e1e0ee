"""Serves watches: what a resume token means, which results match and when a bookmark is due."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from homing.v1 import invocation_service_pb2 as api
from homing_core.clock import now_us
from homing_server.auth.identity import Identity
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ErrorReason, resume_token_expired, unavailable
from homing_server.metrics import Metrics
from homing_server.rules.filters import check_filter, matcher
from homing_server.rules.tokens import decode_token, encode_token
from homing_server.rules.validation import Checks
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import timestamp
from homing_server.store.read import Numbered
from homing_server.watch.feed import Feed
from homing_server.watch.hub import WatchHub

_BOOKMARK_SECONDS = 10.0


class WatchService:
    """Opens watches."""

    def __init__(self, database: Database, hub: WatchHub, wait_reasons: WaitReasons, metrics: Metrics) -> None:
        self._database = database
        self._hub = hub
        self._wait_reasons = wait_reasons
        self._metrics = metrics

    async def watch(self, request: api.WatchResultsRequest, *, caller: Identity) -> AsyncIterator[bytes]:
        """Yield a bookmark, then the results, or changes, that match as they come, with bookmarks in between.

        Each is a serialised WatchResultsResponse: a result is the same for all who watch, and serialised once.

        :raises ApiError: INVALID_ARGUMENT; OUT_OF_RANGE for a token that cannot be resumed from; UNAVAILABLE when the
            server stops.
        """
        caller.narrow(request.filter)
        checks = Checks()
        check_filter(checks, request.filter)
        checks.done()
        functions = frozenset(request.filter.functions)
        kind, feed = ("changes", self._hub.changes) if request.include_transitions else ("results", self._hub.results)
        seq = await self._start(kind, feed, request.resume_token, functions)
        matches = matcher(request.filter)
        self._metrics.watchers.inc()
        try:
            yield self._bookmark(kind, seq)
            sent_at = time.monotonic()
            async for page in feed.pages(seq, functions):
                if feed.closed:
                    raise unavailable(ErrorReason.SERVER_STOPPING, "the server stops; resume after the last token")
                for item in page:
                    seq = item.seq
                    if matches(item.invocation):
                        yield item.message or self._message_of(kind, item)
                        sent_at = time.monotonic()
                if time.monotonic() - sent_at >= _BOOKMARK_SECONDS:
                    yield self._bookmark(kind, seq)
                    sent_at = time.monotonic()
                if not page:
                    await feed.moved_past(seq, max(0.0, sent_at + _BOOKMARK_SECONDS - time.monotonic()))
        finally:
            self._metrics.watchers.dec()

    async def _start(self, kind: str, feed: Feed, resume_token: str, functions: frozenset[str]) -> int:
        last = await feed.last()
        if not resume_token:
            return last
        token = decode_token(kind, resume_token, field="resume_token", holds={"store": str, "seq": int})
        if token["store"] != self._database.identity:
            raise resume_token_expired("it belongs to another store")
        seq = int(token["seq"])
        if seq > last:
            # The store was put back to an earlier state: it gives these numbers again.
            raise resume_token_expired("the store is not as far any more")
        await feed.check_kept(seq, functions)
        return seq

    def _message_of(self, kind: str, item: Numbered) -> bytes:
        invocation = self._wait_reasons.explain(item.invocation)
        response = api.WatchResultsResponse(resume_token=self._token(kind, item.seq), invocation=invocation)
        item.message = response.SerializeToString()
        return item.message

    def _bookmark(self, kind: str, seq: int) -> bytes:
        bookmark = api.Bookmark(time=timestamp(now_us()))
        return api.WatchResultsResponse(resume_token=self._token(kind, seq), bookmark=bookmark).SerializeToString()

    def _token(self, kind: str, seq: int) -> str:
        return encode_token(kind, {"store": self._database.identity, "seq": seq})
