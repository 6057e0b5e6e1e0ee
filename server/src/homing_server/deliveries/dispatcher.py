"""Sends deliveries on their way: to workers when they are due, and to functions at once.

Back-pressure: of each receiver a bounded part is in flight at the workers, so that one which hangs does not take all
that they take; the rest waits in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from homing_core import limits
from homing_core.broker import Broker
from homing_core.clock import now_us
from homing_core.wire.v1 import DeliveryMessage
from homing_server.auth.authority import Authority
from homing_server.deliveries.large_envelopes import LargeEnvelopes
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store import delivery_claims, outbox
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.outbox import Dispatch

_log = structlog.get_logger(__name__)

_BATCH_SIZE: Final = 500
_POLL_SECONDS: Final = 1.0
"""How often, in seconds, the store is asked for deliveries that another server left there."""
_TAKE_BACK_DELAY_US: Final = 500_000
_STORE_AGAIN_DELAY_US: Final = 1_000_000
"""How long what is too large waits where it cannot be stored apart now."""
_AWAY_SECONDS: Final = 0.5
"""How long to wait, in seconds, while there is no broker."""


class DeliveryDispatcher:
    """Publishes deliveries that are due, and invokes the functions that others go to."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        *,
        blobs: Blobs,
        urls: SignedUrls,
        authority: Authority,
        metrics: Metrics,
        caused: Callable[[str, int], None],
        resend_after: float,
    ) -> None:
        """Prepare to dispatch.

        :param authority: Checks whether callers still may what they asked for.
        :param caused: Notified of each function that was invoked, and when the invocation is due.
        :param resend_after: Seconds after which what was never seen confirmed is published again.
        """
        self._database = database
        self._broker = broker
        self._blobs = blobs
        self._envelopes = LargeEnvelopes(blobs)
        self._urls = urls
        self._authority = authority
        self._metrics = metrics
        self._caused = caused
        self._resend_after_us = int(resend_after * 1e6)
        self._woken = asyncio.Event()
        self._next_due_us: int | None = None
        self._full = True
        """Whether some wait until others of their receiver have left the workers."""

    def on_committed(self, effects: CommitEffects) -> None:
        """Take note of what was recorded: what ended, and what became of deliveries."""
        self._count(delivered=effects.delivered, dead=effects.given_up)
        if effects.deliveries or effects.put_off or (effects.delivery_reports and self._full):
            self._woken.set()

    def wake(self) -> None:
        """Look for what is due, since something else than a report has made it so."""
        self._woken.set()

    async def feed(self) -> None:
        """Wait until deliveries are due, and send them on their way. One step of a loop."""
        await self._wait()
        if not self._broker.connected:
            await asyncio.sleep(_AWAY_SECONDS)
            self._woken.set()
            return
        # Until it is known whether anything waits for room, whatever makes some wakes.
        self._full = True
        claim = await self._database.write(
            delivery_claims.claim,
            now_us=now_us(),
            most=_BATCH_SIZE,
            head=self._head,
            check=self._authority.check_passing_on,
            envelopes=self._envelopes.stored,
        )
        self._full, self._next_due_us = claim.full, claim.next_due_us
        if claim.more:
            self._woken.set()
        chained = claim.chained
        self._envelopes.forget(chained.settled)
        for function in set(chained.caused):
            self._caused(function, now_us())
        self._metrics.accepted.inc(len(chained.caused))
        self._count(delivered=len(chained.caused), dead=chained.dead)
        if claim.messages:
            await self._publish(claim.messages)
        if chained.too_large:
            if await self._envelopes.store(chained.too_large):
                self._woken.set()
            else:
                self._look_again(now_us() + _STORE_AGAIN_DELAY_US)

    async def sweep(self) -> None:
        """Take back what nobody has seen confirmed, and look for what others left. One step of a loop."""
        await asyncio.sleep(_POLL_SECONDS)
        before = now_us() - self._resend_after_us
        forgotten = await self._database.read(outbox.DELIVERIES.forgotten, sent_before_us=before)
        if forgotten:
            _log.info("unconfirmed_deliveries_taken_back", deliveries=len(forgotten))
            await self._database.write(outbox.DELIVERIES.take_back, forgotten, due_us=now_us())
        due = await self._database.read(delivery_claims.due_by_receiver)
        if due and min(due.values()) <= now_us():
            self._woken.set()

    async def _wait(self) -> None:
        if self._next_due_us is None:
            await self._woken.wait()
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, (self._next_due_us - now_us()) / 1e6)):
                    await self._woken.wait()
        self._woken.clear()

    async def _publish(self, messages: Sequence[DeliveryMessage]) -> None:
        for message in messages:
            message.result_url = self._urls.reading(message.result.payload)
            message.gateway_url = self._urls.base
        outcomes = await self._broker.publish_deliveries([message.SerializeToString() for message in messages])
        sent = [_key(message) for message, outcome in zip(messages, outcomes, strict=True) if outcome is None]
        failed = [_key(message) for message, outcome in zip(messages, outcomes, strict=True) if outcome is not None]
        if sent:
            await self._database.write(outbox.DELIVERIES.confirm, sent)
        if failed:
            due_us = now_us() + _TAKE_BACK_DELAY_US
            _log.warning("not_confirmed", deliveries=len(failed))
            await self._database.write(outbox.DELIVERIES.take_back, failed, due_us=due_us)
            self._look_again(due_us)

    def _look_again(self, due_us: int) -> None:
        self._next_due_us = min(due_us, self._next_due_us or due_us)

    def _count(self, *, delivered: int, dead: int) -> None:
        self._metrics.deliveries.labels("DELIVERED").inc(delivered)
        self._metrics.deliveries.labels("DEAD").inc(dead)

    def _head(self, blob_id: str) -> bytes:
        """Return the beginning of a stored body; nothing where it is gone."""
        try:
            with self._blobs.path(blob_id).open("rb") as file:
                return file.read(limits.MAX_ENVELOPE_BODY)
        except OSError as error:
            _log.warning("envelope_body_unreadable", blob=blob_id, error=error.strerror)
            return b""


def _key(message: DeliveryMessage) -> Dispatch:
    return message.delivery_id, message.generation
