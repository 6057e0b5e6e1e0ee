"""Lists that are fetched page by page, for the asynchronous client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Self

from homing._aio.connection import AsyncConnection
from homing._core import convert
from homing._core.calls import Deadline
from homing._core.dead_letter import DeadLetter, dead_letter
from homing._core.listing import Item, ListProgress, Request
from homing._core.values import Invocation
from homing.errors import PayloadTooLargeError
from homing.v1 import dead_letter_service_pb2, invocation_service_pb2


class AsyncPages(ABC, Generic[Request, Item]):
    """What lists have in common."""

    def __init__(
        self, connection: AsyncConnection, progress: ListProgress[Request, Item], *, timeout: float | None
    ) -> None:
        self._connection = connection
        self._progress: ListProgress[Request, Item] = progress
        self._timeout = timeout

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """Return the next one; fetch the page that it is on where needed.

        :raises RequestError: The call failed. Iterating on tries the same page again.
        """
        while True:
            item = self._progress.next_of_page()
            if item is not None:
                return item
            if self._progress.finished:
                raise StopAsyncIteration
            await self.fetch_next_page()

    @property
    def current_page(self) -> Sequence[Item] | None:
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

    async def fetch_next_page(self, *, page_size: int | None = None) -> Sequence[Item]:
        """Fetch the next page, make it the current one and return it; behind the last page it is empty.

        :param page_size: How many it has at the most; by default as many as the others.
        :raises RequestError: The call failed. What was fetched stays; calling again tries the same page.
        """
        if self._progress.finished:
            return self._progress.end()
        while True:
            request = self._progress.next_request(page_size)
            try:
                page, token = await self._fetch(request, Deadline.after(self._timeout))
            except PayloadTooLargeError as error:
                page_size = self._progress.shrink(request.page_size, error)
            else:
                return self._progress.take(page, token)

    @abstractmethod
    async def _fetch(self, request: Request, deadline: Deadline) -> tuple[Sequence[Item], str]:
        """Return a page and the token of the next one."""


class AsyncInvocationList(AsyncPages[invocation_service_pb2.ListInvocationsRequest, Invocation]):
    """Invocations, fetched page by page while one iterates. Made by ``client.list_invocations``.

    One may also turn the pages oneself, with ``fetch_next_page`` and ``current_page``.
    """

    async def _fetch(
        self, request: invocation_service_pb2.ListInvocationsRequest, deadline: Deadline
    ) -> tuple[Sequence[Invocation], str]:
        response = await self._connection.call_idempotent(
            self._connection.invocations.ListInvocations, request, deadline=deadline
        )
        return tuple(map(convert.invocation, response.invocations)), response.next_page_token


class AsyncDeadLetterList(AsyncPages[dead_letter_service_pb2.ListDeadLettersRequest, DeadLetter]):
    """Dead letters, fetched page by page while one iterates. Made by ``client.dead_letters.list``.

    One may also turn the pages oneself, with ``fetch_next_page`` and ``current_page``.
    """

    async def _fetch(
        self, request: dead_letter_service_pb2.ListDeadLettersRequest, deadline: Deadline
    ) -> tuple[Sequence[DeadLetter], str]:
        response = await self._connection.call_idempotent(
            self._connection.dead_letters.ListDeadLetters, request, deadline=deadline
        )
        return tuple(map(dead_letter, response.dead_letters)), response.next_page_token
