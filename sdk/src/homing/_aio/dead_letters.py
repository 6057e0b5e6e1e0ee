"""Dead letters, for the asynchronous client."""

from __future__ import annotations

from typing import Unpack

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
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[DeadLetterOptions],
    ) -> Redriven:
        """Run dead invocations again, as new ones, and make dead deliveries again, with as many attempts as at first.

        ::

            await client.dead_letters.redrive(function="report", since=noon, max_per_second=10)

        What is redriven is no dead letter any more. A call that is retried because the server was unavailable redrives
        the rest, and counts only that; nothing is run twice.

        :param dry_run: Whether to count only.
        :param max_per_second: How many start in a second at the most, up to 10,000; by default there is no cap. The
            others are scheduled for later.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's.
        :param conditions: Which ones, at least one condition; see ``DeadLetterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or there is no condition.
        :raises RequestError: The call failed. Some may have been redriven; calling again redrives the rest.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = redrive_request(conditions, dry_run=dry_run, max_per_second=max_per_second)
        response = await self._connection.call_idempotent(
            self._connection.dead_letters.RedriveDeadLetters, request, deadline=deadline
        )
        return redriven(response)

    async def purge(
        self,
        *,
        dry_run: bool = False,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[DeadLetterOptions],
    ) -> Purged:
        """Forget dead letters. The records of their invocations stay until their retention is over.

        A call that is retried because the server was unavailable forgets the rest, and counts only that.

        :param dry_run: Whether to count only.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's.
        :param conditions: Which ones, at least one condition; see ``DeadLetterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or there is no condition.
        :raises RequestError: The call failed. Some may have been forgotten; calling again forgets the rest.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = purge_request(conditions, dry_run=dry_run)
        response = await self._connection.call_idempotent(
            self._connection.dead_letters.PurgeDeadLetters, request, deadline=deadline
        )
        return purged(response)
