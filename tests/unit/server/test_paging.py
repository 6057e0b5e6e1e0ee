"""Pages end at a size or before they pass a limit in bytes, and tokens go on behind the last item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing.v1 import invocation_service_pb2 as invocations
from homing.v1 import key_service_pb2 as keys
from homing.v1 import secret_service_pb2 as secrets
from homing.v1.invocation_pb2 import InvocationFilter
from homing_server.errors import ApiError
from homing_server.rules import paging
from homing_server.rules.paging import BY_NAME, MAX_PAGE_BYTES, MAX_PAGE_SIZE, Cursor, Paging, name_after
from homing_server.rules.validation import Checks

SECRETS = Paging(kind="secrets", place=BY_NAME, default_size=7)


def cursor_of(paging_: Paging = SECRETS, request: Any = None, **fields: Any) -> Cursor:
    checks = Checks()
    cursor = paging_.cursor(checks, secrets.ListSecretsRequest(**fields) if request is None else request)
    checks.done()
    return cursor


def answered(all_: Sequence[secrets.Secret], request: secrets.ListSecretsRequest) -> secrets.ListSecretsResponse:
    cursor = cursor_of(request=request)
    rest = [each for each in all_ if each.name > name_after(cursor)]
    page = cursor.page(
        rest[: cursor.size], more=len(rest) > cursor.size, place_of=lambda secret: {"after": secret.name}
    )
    return secrets.ListSecretsResponse(secrets=page.items, next_page_token=page.next_page_token)


@given(
    sizes=st.lists(st.integers(0, 300), max_size=20),
    page_size=st.integers(0, 8),
    limit=st.integers(0, 1000),
)
def test_pages_are_as_large_as_they_may_be_and_have_everything_once(
    sizes: list[int], page_size: int, limit: int
) -> None:
    """Sizes are those of names; the limit is what is left of a page for its items."""
    all_ = [secrets.Secret(name=f"{number:03}" + "x" * size) for number, size in enumerate(sizes)]
    request = secrets.ListSecretsRequest(page_size=page_size)
    seen: list[secrets.Secret] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(paging, "MAX_PAGE_BYTES", paging._TOKEN_BYTES + limit)
        while True:
            response = answered(all_, request)
            found = list(response.secrets)
            seen += found
            assert len(found) <= (page_size or 7)
            assert len(found) <= 1 or response.ByteSize() <= paging.MAX_PAGE_BYTES
            request.page_token = response.next_page_token
            if not request.page_token:
                break
            assert found
            following = all_[len(seen)]
            # No smaller than they need be: the next one would not have fit.
            assert len(found) == (page_size or 7) or sum(map(room_of, [*found, following])) > limit
    assert seen == all_


def room_of(secret: secrets.Secret) -> int:
    return paging._encoded_size(secret)


def test_what_is_too_large_by_itself_is_a_page() -> None:
    large = [secrets.Secret(name=name + "x" * MAX_PAGE_BYTES) for name in "abc"]
    response = answered(large, secrets.ListSecretsRequest())
    assert list(response.secrets) == large[:1]
    assert response.next_page_token


def test_sizes() -> None:
    assert cursor_of().size == 7
    assert cursor_of(page_size=3).size == 3
    assert cursor_of(page_size=2**31 - 1).size == MAX_PAGE_SIZE
    with pytest.raises(ApiError, match="page_size: must be from 0"):
        cursor_of(page_size=-1)


def test_a_token_is_good_for_its_list_and_its_question_alone() -> None:
    first = cursor_of(page_size=1).page(
        [secrets.Secret(name="a")], more=True, place_of=lambda secret: {"after": secret.name}
    )
    assert cursor_of(page_token=first.next_page_token, page_size=500).after == {"after": "a"}

    others = Paging(kind="keys", place=BY_NAME)
    with pytest.raises(ApiError, match="page_token: is not a token that this server gave out"):
        cursor_of(others, keys.ListKeysRequest(page_token=first.next_page_token))
    with pytest.raises(ApiError, match="page_token: is not a token that this server gave out"):
        cursor_of(page_token=first.next_page_token + "x")
    asked = invocations.ListInvocationsRequest(
        filter=InvocationFilter(functions=["resize"]), page_token=first.next_page_token
    )
    with pytest.raises(ApiError, match="page_token: belongs to a request with another filter, order or content"):
        cursor_of(request=asked)


def test_the_sizes_of_pages_are_those_that_callers_were_promised() -> None:
    assert Paging(kind="keys", place=BY_NAME).cursor(Checks(), keys.ListKeysRequest()).size == 100
    assert MAX_PAGE_SIZE == 1000
    assert name_after(cursor_of()) == ""


def sized(size: int) -> secrets.Secret:
    """Return an item that takes so many bytes."""
    made = (secrets.Secret(name="x" * length) for length in range(size - 5, size))
    return next(each for each in made if each.ByteSize() == size)


@pytest.mark.parametrize(("size", "encoded"), [(127, 130), (128, 132), (16_383, 16_387), (16_384, 16_389)])
def test_a_page_is_filled_to_the_last_byte_and_not_beyond(size: int, encoded: int) -> None:
    """With what stands before each item in a message: the number of its field, and its length."""
    room = 3 * 1024 * 1024 - 1024  # the rest is for the token
    last = sized(room - encoded - 6)
    for more, fits in ((last, 2), (secrets.Secret(name=last.name + "x"), 1)):
        page = cursor_of().page([sized(size), more], more=False, place_of=lambda secret: {"after": secret.name})
        assert len(page.items) == fits
        assert bool(page.next_page_token) is (fits == 1)


def test_a_page_without_items_leads_nowhere() -> None:
    none: list[secrets.Secret] = []
    page = cursor_of().page(none, more=True, place_of=lambda secret: {"after": secret.name})
    assert (page.items, page.next_page_token) == ([], "")


def test_a_token_outlives_an_upgrade_and_does_not_depend_on_the_order_of_a_map() -> None:
    """It was given out by an earlier version."""
    token = "gNKp61sxLCJzZWNyZXRzIix7ImFmdGVyIjoiYSIsInF1ZXN0aW9uIjoiYTU2OTYzMzYyYjA2ZjNhYSJ9XQ"
    filtered = InvocationFilter()
    for number in reversed(range(16)):
        filtered.labels[f"label-{number}"] = str(number)
    cursor = cursor_of(request=invocations.ListInvocationsRequest(filter=filtered, page_token=token))
    assert cursor.after == {"after": "a"}
