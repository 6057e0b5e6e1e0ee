"""Ids sort by time, and their beginnings tell it."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing_core.ids import new_id, times_of_ids

times = st.integers(1, 2**48 * 1000 - 1)


@given(times, st.integers(1, 36))
def test_every_beginning_of_an_id_tells_a_range_with_its_time(time_us: int, length: int) -> None:
    found = times_of_ids(new_id(time_us)[:length])
    assert found is not None
    first, end = found
    assert first <= time_us < end
    if length >= 13:
        assert end - first == 1000, "a millisecond"


@given(times, times)
def test_ids_sort_by_time(one: int, other: int) -> None:
    if abs(one - other) > 1:
        assert (new_id(one) < new_id(other)) == (one < other)
    assert uuid.UUID(new_id(one)).version == 7


@pytest.mark.parametrize("prefix", ["", "-", "z", "01_9", "0x1", "+1", "01 9", "01G"])
def test_what_no_id_begins_with_tells_nothing(prefix: str) -> None:
    assert times_of_ids(prefix) is None
