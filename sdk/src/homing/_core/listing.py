"""How far a list has come, and what its next page asks for."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Final, Generic, Literal, TypeVar

from homing._core import check
from homing._core.filter import FilterOptions, invocation_filter
from homing.errors import PayloadTooLargeError
from homing.v1 import dead_letter_service_pb2, invocation_service_pb2

Order = Literal["newest_first", "oldest_first"]
"""Latest or earliest acceptance first."""

_ORDERS: Final[Mapping[str, invocation_service_pb2.InvocationOrder.ValueType]] = {
    "newest_first": invocation_service_pb2.INVOCATION_ORDER_NEWEST_FIRST,
    "oldest_first": invocation_service_pb2.INVOCATION_ORDER_OLDEST_FIRST,
}
Request = TypeVar(
    "Request", invocation_service_pb2.ListInvocationsRequest, dead_letter_service_pb2.ListDeadLettersRequest
)
Item = TypeVar("Item")

MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100


def list_request(
    conditions: FilterOptions, *, order: Order, page_token: str | None, include_payload: bool, include_result: bool
) -> invocation_service_pb2.ListInvocationsRequest:
    """Return the request for the first page of a list.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    if order not in _ORDERS:
        raise check.invalid("order", f"must be one of {', '.join(_ORDERS)}, is {order!r}")
    return invocation_service_pb2.ListInvocationsRequest(
        filter=invocation_filter(**conditions),
        order=_ORDERS[order],
        page_token="" if page_token is None else check.text("page_token", page_token),
        include_payload=check.flag("include_payload", include_payload),
        include_result=check.flag("include_result", include_result),
    )


class ListProgress(Generic[Request, Item]):
    """The pages of a list so far: the present one, the place in it, and the token of the next one."""

    def __init__(self, request: Request, *, limit: int | None, page_size: int | None) -> None:
        """Begin before the first page.

        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        self._request: Request = request
        self._limit = None if limit is None else _at_least_one("limit", limit)
        self._page_size = min(DEFAULT_PAGE if page_size is None else _at_least_one("page_size", page_size), MAX_PAGE)
        self._fetched = 0
        self._at = 0
        self.page: Sequence[Item] | None = None
        self.page_index = -1
        self.next_token: str | None = request.page_token

    @property
    def finished(self) -> bool:
        """Whether no further page is to be fetched."""
        return self.next_token is None

    def next_request(self, page_size: int | None) -> Request:
        """Return the request for the next page."""
        size = self._page_size if page_size is None else min(_at_least_one("page_size", page_size), MAX_PAGE)
        if self._limit is not None:
            size = min(size, self._limit - self._fetched)
        request: Request = copy.deepcopy(self._request)
        request.page_token = self.next_token or ""
        request.page_size = size
        return request

    def take(self, page: Sequence[Item], next_page_token: str) -> Sequence[Item]:
        """Move to the page that came."""
        self.page = page
        self.page_index += 1
        self._at = 0
        self._fetched += len(self.page)
        full = self._limit is not None and self._fetched >= self._limit
        self.next_token = None if full else next_page_token or None
        return page

    def end(self) -> Sequence[Item]:
        """Move behind the last page and return what is there: nothing."""
        self.page = ()
        self._at = 0
        return ()

    def shrink(self, size: int, error: PayloadTooLargeError) -> int:
        """Return the size with which to ask for a page again that was too large for one message.

        :raises PayloadTooLargeError: It cannot be smaller.
        """
        if size <= 1:
            raise error
        self._page_size = size // 2
        return self._page_size

    def next_of_page(self) -> Item | None:
        """Return the next item of the present page; None at its end."""
        if self.page is None or self._at == len(self.page):
            return None
        self._at += 1
        return self.page[self._at - 1]


def _at_least_one(name: str, value: int) -> int:
    if check.integer(name, value) < 1:
        raise check.invalid(name, f"must be at least 1, is {value}")
    return value
