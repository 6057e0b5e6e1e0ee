"""What is asked and reported while the attempts of a dispatch are made, and how that becomes events."""

from __future__ import annotations

import asyncio
from typing import Protocol

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.wire.v1 import AttemptRecord, Deferred, Dequeued, Ended, Event, Leased, Requeued
from homing_worker.execution.dispatch import Bounds, Dispatch
from homing_worker.execution.services import RunServices


class StoppedError(Exception):
    """A tombstone covers the dispatch: it must not start."""


class Journal(Protocol):
    """Lets the attempts of a dispatch start, and takes down how they go."""

    def cold_start(self) -> None:
        """Take down that the first attempt waits for an instance to start."""

    async def admit(self, *, first: bool) -> None:
        """Let an attempt start, or raise what it must not start for.

        :param first: Whether none was made before under this dispatch.
        :raises TooLateError: It is too late for it.
        """

    async def started(self, record: AttemptRecord) -> None:
        """Take down that an attempt starts."""

    def retrying(self, record: AttemptRecord) -> None:
        """Take down that an attempt failed and another one follows at this worker, after a backoff."""

    def progress(self, progress: api.Progress) -> None:
        """Take down how far the function says it is."""


class EventJournal:
    """The journal of an asynchronous dispatch: it reports events under the dispatch's fencing token."""

    def __init__(self, services: RunServices, dispatch: Dispatch, bounds: Bounds, *, confirm_starts: bool) -> None:
        """Prepare to report.

        :param confirm_starts: Whether an attempt starts only after the event that says so is confirmed, since the
            store counts the starts of what was redelivered.
        """
        self._services = services
        self._dispatch = dispatch
        self._bounds = bounds
        self._confirm_starts = confirm_starts

    def check_stopped(self) -> None:
        """Check that there is no tombstone for the dispatch.

        :raises StoppedError: There is one.
        """
        if self._services.tombstones.covers(self._dispatch.invocation_id, self._dispatch.token.generation):
            raise StoppedError

    def cold_start(self) -> None:
        """See :meth:`Journal.cold_start`."""
        self.post(self.event(dequeued=Dequeued(cold_start=True)))

    async def admit(self, *, first: bool) -> None:
        """See :meth:`Journal.admit`.

        :raises StoppedError: The invocation was stopped.
        """
        self.check_stopped()
        self._bounds.check_start(first=first)

    async def started(self, record: AttemptRecord) -> None:
        """See :meth:`Journal.started`."""
        event = self.event(running=record)
        if self._confirm_starts:
            await self.publish(event)
        else:
            self.post(event)

    def retrying(self, record: AttemptRecord) -> None:
        """See :meth:`Journal.retrying`."""
        self.post(self.event(attempt_ended=record))

    def progress(self, progress: api.Progress) -> None:
        """See :meth:`Journal.progress`."""
        self.post(self.event(progress=progress))

    def post(self, event: Event) -> None:
        """Report without waiting."""
        self._services.events.post(event)

    def publish(self, event: Event) -> asyncio.Future[None]:
        """Report; the result becomes done when the broker has confirmed it."""
        return self._services.events.publish(event)

    def event(
        self,
        *,
        dequeued: Dequeued | None = None,
        running: AttemptRecord | None = None,
        attempt_ended: AttemptRecord | None = None,
        deferred: Deferred | None = None,
        requeued: Requeued | None = None,
        ended: Ended | None = None,
        leased: Leased | None = None,
        progress: api.Progress | None = None,
    ) -> Event:
        """Return an event of one kind, as of now."""
        return Event(
            invocation_id=self._dispatch.invocation_id,
            token=self._dispatch.token,
            time_us=now_us(),
            worker=self._services.worker,
            dequeued=dequeued,
            running=running,
            attempt_ended=attempt_ended,
            deferred=deferred,
            requeued=requeued,
            ended=ended,
            leased=leased,
            progress=progress,
        )
