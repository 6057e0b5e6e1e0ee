"""Lists of invocations, for the synchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from homing._core.calls import Deadline
from homing._core.listing import ListProgress
from homing._core.values import Invocation
from homing._sync.connection import Connection
from homing.errors import PayloadTooLargeError

if TYPE_CHECKING:
    from typing_extensions import Self


class InvocationList:
    """Invocations, fetched page by page while one iterates. Made by ``client.list_invocations``.

    One may also turn the pages oneself, with ``fetch_next_page`` and ``current_page``.
    """

    def __init__(self, connection: Connection, progress: ListProgress, *, timeout: float | None) -> None:
        self._connection = connection
        self._progress = progress
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Invocation:
        """Return the next record; fetch the page that it is on where needed.

        :raises RequestError: The call failed. Iterating on tries the same page again.
        """
        while True:
            record = self._progress.next_of_page()
            if record is not None:
                return record
            if self._progress.finished:
                raise StopIteration
            self.fetch_next_page()

    @property
    def current_page(self) -> Sequence[Invocation] | None:
        """The page that was fetched last; None before the first one."""
        return self._progress.page

    @property
    def current_page_index(self) -> int:
        """Its number, from 0; -1 before the first one."""
        return self._progress.page_index

    @property
    def next_page_token(self) -> str | None:
        """What asks for the next page, also as ``page_token`` of another list; None at the end, empty at the start."""
        return self._progress.next_token

    def fetch_next_page(self, *, page_size: int | None = None) -> Sequence[Invocation]:
        """Fetch the next page, make it the current one and return it; behind the last page it is empty.

        :param page_size: How many records it has at the most; by default as many as the others.
        :raises RequestError: The call failed. What was fetched stays; calling again tries the same page.
        """
        if self._progress.finished:
            return self._progress.end()
        while True:
            request = self._progress.next_request(page_size)
            try:
                response = self._connection.call_again(
                    self._connection.invocations.ListInvocations, request, deadline=Deadline.after(self._timeout)
                )
            except PayloadTooLargeError as error:
                page_size = self._progress.shrink(request.page_size, error)
            else:
                return self._progress.take(response)
