"""Pages of lists: how large they are, and the tokens by which they go on.

A page ends at the size that was asked for, or before it would pass the limit in bytes when it is encoded, whichever
comes first. It has one item at least, where there is one, however large that is. Its token names the last item, so that
pages neither repeat nor miss an item while others arrive.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from homing_core.limits import MIB
from homing_server.rules.tokens import decode_token, encode_token
from homing_server.rules.validation import Checks

MAX_PAGE_BYTES: Final = 3 * MIB
"""What a page takes, encoded, at the most: clients of gRPC refuse messages of more than 4 MiB where nothing is said."""
MAX_PAGE_SIZE: Final = 1000
"""So many items a page has at the most, whatever is asked for."""

_TOKEN_BYTES: Final = 1024
"""What is left of a page for its token, which is shorter."""
_MAX_REQUESTED_SIZE: Final = 2**31
_QUESTION: Final = "question"
"""What a token has besides the place: all else that was asked for."""

ItemT = TypeVar("ItemT", bound=Message)
Place = Mapping[str, Any]
"""Where an item is in its list: what its token is made of."""


class ListRequest(Protocol):
    """A request for a page of any list."""

    page_size: int
    page_token: str

    def ClearField(self, field_name: Any, /) -> None:  # noqa: N802 as protobuf names it
        """Unset a field."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 same
        """Return the request, encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page(Generic[ItemT]):
    """A part of a list."""

    items: list[ItemT]
    next_page_token: str
    """Asks for the next page; empty at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """A request for a page, understood."""

    after: Place | None
    """Where the last item of the page before is; None for the first page."""
    size: int
    """How many items the page may have."""
    kind: str
    question: str

    def page(self, items: Iterable[ItemT], *, more: bool, place_of: Callable[[ItemT], Place]) -> Page[ItemT]:
        """Return the page that begins with these items, as many of them as fit.

        :param items: Those that follow where the request goes on, in their order: `size` of them at the most.
        :param more: Whether others follow after them.
        :param place_of: Tells where an item is.
        """
        kept: list[ItemT] = []
        room = MAX_PAGE_BYTES - _TOKEN_BYTES
        for item in items:
            room -= _encoded_size(item)
            if kept and room < 0:
                more = True
                break
            kept.append(item)
        token = ""
        if more and kept:
            token = encode_token(self.kind, {**place_of(kept[-1]), _QUESTION: self.question})
        return Page(items=kept, next_page_token=token)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paging:
    """How one list is paged."""

    kind: str
    """Tells its tokens from those of other lists."""
    place: Mapping[str, type[int | str]]
    """What says where an item is: names and types."""
    default_size: int = 100
    """How many items a page has where nothing is asked for."""

    def cursor(self, checks: Checks, request: ListRequest) -> Cursor:
        """Understand a request, and note what is wrong with it.

        :param request: As it is answered: with its filter narrowed to what the caller may see.
        :raises ApiError: INVALID_ARGUMENT: the token is none of this list's.
        """
        checks.integer("page_size", request.page_size, 0, _MAX_REQUESTED_SIZE)
        question = _question(request)
        after = None
        if request.page_token:
            holds = {**self.place, _QUESTION: str}
            after = decode_token(self.kind, request.page_token, field="page_token", holds=holds)
            if after.pop(_QUESTION) != question:
                checks.add("page_token", "belongs to a request with another filter, order or content")
        size = min(request.page_size or self.default_size, MAX_PAGE_SIZE)
        return Cursor(after=after, size=size, kind=self.kind, question=question)


BY_NAME: Final[Mapping[str, type[int | str]]] = {"after": str}
"""The place in a list that is in the order of names."""


def name_after(cursor: Cursor) -> str:
    """Return the name after which a page by name begins; empty for the first one."""
    return "" if cursor.after is None else str(cursor.after["after"])


def _question(request: ListRequest) -> str:
    """Return what must be the same in all requests for pages of one list."""
    asked = copy.deepcopy(request)
    asked.ClearField("page_token")
    asked.ClearField("page_size")
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()[:16]


def _encoded_size(item: Message) -> int:
    """Return what an item of a list takes in a message: with the number of its field, and its length, before it."""
    size = item.ByteSize()
    return size + 2 + (size.bit_length() + 6) // 7
