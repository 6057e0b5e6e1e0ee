# Generated from _aio/by_filter.py by scripts/unasync.py; do not edit.
"""The part of the synchronous client that is about all invocations that match a filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from homing._core import bulk, check
from homing._core.bulk import BulkRerun, BulkStopped, InvocationCounts
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.filter import FilterOptions, invocation_filter
from homing._core.listing import ListProgress, Order, list_request
from homing._core.spec import Seconds
from homing._core.values import Invocation
from homing._core.watch import WatchProgress
from homing._sync.bulk import bulk_call
from homing._sync.connection import Connection
from homing._sync.listing import InvocationList
from homing._sync.seam.stream import subscribed
from homing._sync.watch import ResultWatch
from homing.v1 import invocation_service_pb2
from homing.v1.invocation_service_pb2 import ListInvocationsRequest


class ByFilter:
    """Lists, counts and watches invocations, stops them and runs them again, many at once."""

    _connection: Connection

    def list_invocations(
        self,
        *,
        order: Order = "newest_first",
        limit: int | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        include_payload: bool = False,
        include_result: bool = False,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[FilterOptions],
    ) -> InvocationList:
        """Return the invocations that match, fetched page by page while one iterates; the call itself fetches nothing.

        ::

            for invocation in client.list_invocations(states=[InvocationState.FAILED], limit=200):
                print(invocation.id, invocation.failure)

        Pages neither repeat nor miss a record while others arrive.

        :param order: ``newest_first`` or ``oldest_first``, by the time of acceptance.
        :param limit: How many at the most; by default all.
        :param page_size: How many to fetch in one call, up to 1,000; 100 by default.
        :param page_token: Goes on where another list with the same conditions was: its ``next_page_token``.
        :param include_payload: Whether payloads are wanted.
        :param include_result: Whether results are wanted.
        :param timeout: How long fetching a page may take, in seconds or as a timedelta; by default the client's.
        :param conditions: Which ones: ``function``, ``states``, ``labels``, ``created_since`` and so on; see
            ``FilterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        request = list_request(
            conditions,
            order=order,
            page_token=page_token,
            include_payload=include_payload,
            include_result=include_result,
        )
        seconds = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        progress = ListProgress[ListInvocationsRequest, Invocation](request, limit=limit, page_size=page_size)
        return InvocationList(self._connection, progress, timeout=seconds)

    def watch_results(
        self,
        *,
        include_transitions: bool = False,
        resume_token: str | None = None,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[FilterOptions],
    ) -> ResultWatch:
        """Watch for invocations that end. The watch is in place when the call returns: what ends from then on is seen.

        ::

            with client.watch_results(function="figlet") as events:
                for event in events:
                    print(event.invocation.id, event.result.text)

        :param include_transitions: Whether every change is wanted, of state and of progress, and not only ends.
        :param resume_token: Goes on after the event that another watch saved it from; by default from now on.
        :param timeout: How long the subscription may take, in seconds or as a timedelta; by default the client's.
            Once it is in place, the watch reconnects for as long as it takes.
        :param conditions: Which ones: ``function``, ``states``, ``labels`` and so on; see ``FilterOptions``.
        :raises ResumeTokenExpiredError: The token is too old.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises RequestError: The subscription failed.
        """
        wanted = invocation_filter(**conditions)
        token = "" if resume_token is None else check.text("resume_token", resume_token)
        seconds = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        progress = WatchProgress(wanted, token, transitions=check.flag("include_transitions", include_transitions))
        return subscribed(ResultWatch(self._connection, progress, timeout=seconds))

    def count(
        self, *, timeout: Seconds | Unset | None = UNSET, **conditions: Unpack[FilterOptions]
    ) -> InvocationCounts:
        """Count the invocations that match, by state. Counting stops at 10,000 for each state.

        ::

            client.count(function="figlet").by_state.get(InvocationState.FAILED, 0)

        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's.
        :param conditions: Which ones, by default all; see ``FilterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises RequestError: The call failed.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = invocation_service_pb2.CountInvocationsRequest(filter=invocation_filter(**conditions))
        response = self._connection.call_idempotent(
            self._connection.invocations.CountInvocations, request, deadline=deadline
        )
        return bulk.counts(response)

    def bulk_stop(
        self,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        request_id: str | None = None,
        on_progress: Callable[[BulkStopped], object] | None = None,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[FilterOptions],
    ) -> BulkStopped:
        """Stop all invocations that match, had been accepted when the call began and have not ended.

        ::

            client.bulk_stop(function="figlet", created_until=noon, reason="bad input", dry_run=True).matched

        Where it breaks off it goes on by itself while time remains, and counts everything once.

        :param reason: Why, for the records.
        :param dry_run: Whether to count only.
        :param request_id: An id of your choice, at most 128 ASCII characters: a call with the same id goes on where an
            earlier one broke off, or tells what that came to. By default a new one.
        :param on_progress: Called with the counts so far, a few times in a second, and with those of the end. It must
            not block.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's. When it is
            over the server stops no more.
        :param conditions: Which ones, at least one condition; see ``FilterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or there is no condition.
        :raises AlreadyExistsError: The request id was used for another call.
        :raises RequestError: The call failed. Some may have been stopped; a call with the error's ``request_id`` goes
            on from there.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = bulk.stop_request(
            invocation_filter(**conditions), reason=reason, dry_run=dry_run, request_id=request_id
        )
        return bulk_call(
            self._connection,
            lambda stubs: stubs.invocations.BulkStop,
            request,
            deadline=deadline,
            counts=bulk.stopped,
            on_progress=on_progress,
        )

    def bulk_rerun(
        self,
        *,
        dry_run: bool = False,
        max_per_second: float | None = None,
        include_rerun: bool = False,
        request_id: str | None = None,
        on_progress: Callable[[BulkRerun], object] | None = None,
        timeout: Seconds | Unset | None = UNSET,
        **conditions: Unpack[FilterOptions],
    ) -> BulkRerun:
        """Run all invocations that match, and had ended when the call began, again, as new ones.

        What was run again before is left out: its re-runs stand for it, and are run again where they match.

        ::

            client.bulk_rerun(states=[InvocationState.FAILED], ended_since=noon, max_per_second=10)

        Where it breaks off it goes on by itself while time remains; nothing runs again twice, and each is counted once.

        :param dry_run: Whether to count only.
        :param max_per_second: How many start in a second at the most, up to 10,000; by default there is no cap. The
            others are scheduled for later.
        :param include_rerun: Whether to run again also what was run again before.
        :param request_id: An id of your choice, at most 128 ASCII characters: a call with the same id goes on where an
            earlier one broke off, or tells what that came to. By default a new one.
        :param on_progress: Called with the counts so far, a few times in a second, and with those of the end. It must
            not block.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's. When it is
            over the server runs no more again.
        :param conditions: Which ones, at least one condition; see ``FilterOptions``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule, or there is no condition.
        :raises AlreadyExistsError: The request id was used for another call.
        :raises RequestError: The call failed. Some may run again; a call with the error's ``request_id`` goes on from
            there.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = bulk.rerun_request(
            invocation_filter(**conditions),
            dry_run=dry_run,
            max_per_second=max_per_second,
            include_rerun=include_rerun,
            request_id=request_id,
        )
        return bulk_call(
            self._connection,
            lambda stubs: stubs.invocations.BulkRerun,
            request,
            deadline=deadline,
            counts=bulk.rerun,
            on_progress=on_progress,
        )
