"""Dead letters, for the asynchronous client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from homing._aio.bulk import bulk_call
from homing._aio.connection import AsyncConnection
from homing._aio.listing import AsyncDeadLetterList
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.dead_letter import (
    DeadLetter,
    DeadLetterOptions,
    Purged,
    Redriven,
    list_request,
    not_found,
    purge_request,
    purged,
    redrive_request,
    redriven,
)
from homing._core.listing import ListProgress
from homing._core.spec import Seconds
from homing.v1.dead_letter_service_pb2 import ListDeadLettersRequest


class AsyncDeadLetters:
    """Lists what came to nothing, tries it again and forgets it; reached as ``client.dead_letters``.

    A dead letter is an asynchronous invocation that ended FAILED, TIMED_OUT, EXPIRED or INVALID, or a delivery that was
    given up. It is there until it is redriven or purged, or its record is removed.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def list(
        self,
        *,
        limit: int | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[DeadLetterOptions],
    ) -> AsyncDeadLetterList:
        """Return the dead letters that match, the newest first, fetched page by page while one iterates.

        ::

            async for letter in client.dead_letters.list(function="report"):
                print(letter.id, letter.failure)

        The call itself fetches nothing.

        :param limit: How many at the most; by default all.
        :param page_size: How many to fetch in one call, up to 1,000; 100 by default.
        :param page_token: Goes on where another list with the same conditions was: its ``next_page_token``.
        :param timeout: How long fetching a page may take, in seconds or as a timedelta; by default the client's.
        :param conditions: Which ones: ``ids``, ``kind``, ``function``, ``since``, ``until``; see
            ``DeadLetterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        seconds = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        request = list_request(conditions, page_token=page_token)
        progress = ListProgress[ListDeadLettersRequest, DeadLetter](request, limit=limit, page_size=page_size)
        return AsyncDeadLetterList(self._connection, progress, timeout=seconds)

    async def get(self, dead_letter_id: str) -> DeadLetter:
        """Return a dead letter.

        :param dead_letter_id: The id of the invocation or of the delivery.
        :raises TypeError: The id is no str.
        :raises NotFoundError: There is none: it never was one, or was redriven, purged or removed with its record.
        :raises RequestError: The call failed.
        """
        async for letter in self.list(ids=[dead_letter_id], limit=1):
            return letter
        raise not_found(dead_letter_id)

    async def redrive(
        self,
        *,
        dry_run: bool = False,
        max_per_second: float | None = None,
        request_id: str | None = None,
        on_progress: Callable[[Redriven], object] | None = None,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[DeadLetterOptions],
    ) -> Redriven:
        """Run dead invocations again, as new ones, and make dead deliveries again, with as many attempts as at first.

        ::

            await client.dead_letters.redrive(function="report", since=noon, max_per_second=10)

        What is redriven is no dead letter any more. Where it breaks off it goes on by itself while time remains;
        nothing is redriven twice, and each is counted once.

        :param dry_run: Whether to count only.
        :param max_per_second: How many start in a second at the most, up to 10,000; by default there is no cap. The
            others are scheduled for later.
        :param request_id: An id of your choice, at most 128 ASCII characters: a call with the same id goes on where an
            earlier one broke off, or tells what that came to. By default a new one.
        :param on_progress: Called with the counts so far, a few times in a second, and with those of the end. It must
            not block.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's. When it is
            over the server redrives no more.
        :param conditions: Which ones, at least one condition; see ``DeadLetterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or there is no condition.
        :raises AlreadyExistsError: The request id was used for another call.
        :raises RequestError: The call failed. Some may have been redriven; a call with the error's ``request_id`` goes
            on from there.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = redrive_request(conditions, dry_run=dry_run, max_per_second=max_per_second, request_id=request_id)
        return await bulk_call(
            self._connection,
            lambda stubs: stubs.dead_letters.RedriveDeadLetters,
            request,
            deadline=deadline,
            counts=redriven,
            on_progress=on_progress,
        )

    async def purge(
        self,
        *,
        dry_run: bool = False,
        request_id: str | None = None,
        on_progress: Callable[[Purged], object] | None = None,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[DeadLetterOptions],
    ) -> Purged:
        """Forget dead letters. The records of their invocations stay until their retention is over.

        Where it breaks off it goes on by itself while time remains, and counts everything once.

        :param dry_run: Whether to count only.
        :param request_id: An id of your choice, at most 128 ASCII characters: a call with the same id goes on where an
            earlier one broke off, or tells what that came to. By default a new one.
        :param on_progress: Called with the counts so far, a few times in a second, and with those of the end. It must
            not block.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's. When it is
            over the server forgets no more.
        :param conditions: Which ones, at least one condition; see ``DeadLetterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or there is no condition.
        :raises AlreadyExistsError: The request id was used for another call.
        :raises RequestError: The call failed. Some may have been forgotten; a call with the error's ``request_id`` goes
            on from there.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = purge_request(conditions, dry_run=dry_run, request_id=request_id)
        return await bulk_call(
            self._connection,
            lambda stubs: stubs.dead_letters.PurgeDeadLetters,
            request,
            deadline=deadline,
            counts=purged,
            on_progress=on_progress,
        )
