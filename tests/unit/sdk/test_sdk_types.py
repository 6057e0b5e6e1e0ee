"""Python types as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict
from uuid import UUID, uuid4

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing._core.types import ConversionError, converter


class Color(Enum):
    RED = "red"
    BLUE = 2


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Size(TypedDict):
    width: int
    height: NotRequired[int]


Name = NewType("Name", str)


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, populate_by_name=True)

    count: int = pydantic.Field(alias="Count", ge=0)
    when: datetime


@dataclass(frozen=True, kw_only=True)
class Node:
    name: str
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None


@dataclass(kw_only=True)
class Everything:
    name: str
    number: int
    ratio: float
    flag: bool
    blob: bytes
    moment: datetime
    day: date
    clock: time
    span: timedelta
    price: Decimal
    key: UUID
    color: Color
    level: Level
    size: Size
    node: Node
    model: Model
    words: list[str]
    pair: tuple[int, str]
    several: tuple[int, ...]
    unique: set[int]
    frozen: frozenset[str]
    by_number: dict[int, str]
    by_color: Mapping[Color, int]
    nested: dict[str, list[dict[str, float | None]]]
    either: int | str | None
    choice: Literal["a", 1] | None
    alias: Name
    noted: Annotated[int, "a note"]
    anything: Any = None
    optional: Optional[Size] = None  # noqa: UP045
    sequence: Sequence[int] = ()
    computed: int = field(default=0, init=False)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
spans = st.timedeltas(timedelta(-9999), timedelta(9999))
nodes = st.recursive(
    st.builds(Node, name=text, children=st.just([]), parent=st.none()),
    lambda inner: st.builds(Node, name=text, children=st.lists(inner, max_size=2), parent=st.none() | inner),
    max_leaves=4,
)
everything = st.builds(
    Everything,
    name=text,
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    blob=st.binary(max_size=9),
    moment=st.datetimes(timezones=st.sampled_from([UTC, None])),
    clock=st.times(),
    span=spans.map(lambda span: timedelta(seconds=span.total_seconds())),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    size=st.fixed_dictionaries({"width": st.integers()}, optional={"height": st.integers()}),
    node=nodes,
    model=st.builds(lambda count, when: Model(Count=count, when=when), st.integers(0, 9), st.datetimes()),
    words=st.lists(text, max_size=3),
    by_number=st.dictionaries(st.integers(), text, max_size=3),
    by_color=st.dictionaries(st.sampled_from(Color), st.integers(), max_size=2),
    nested=st.dictionaries(
        text, st.lists(st.dictionaries(text, st.none() | st.floats(-1, 1), max_size=2), max_size=2), max_size=2
    ),
    either=st.none() | st.integers() | text,
    choice=st.sampled_from(["a", 1, None]),
    alias=text.map(Name),
    anything=st.none() | st.integers() | st.lists(st.booleans(), max_size=2),
    sequence=st.lists(st.integers(), max_size=2),
)


@given(everything)
def test_what_is_written_is_read_back(value: Everything) -> None:
    both = converter(Everything)

    carried = json.loads(json.dumps(both.dump(value, "input")))

    assert both.load(carried, "result") == value


def test_the_json_is_what_one_would_write() -> None:
    when = datetime(2026, 11, 22, 8, tzinfo=UTC)
    kind = dict[str, Any]

    assert converter(datetime).dump(when, "") == "2026-11-22T08:00:00+00:00"
    assert converter(datetime).load("2026-11-22T08:00:00Z", "") == when
    assert converter(timedelta).dump(timedelta(minutes=1), "") == 60.0
    assert converter(bytes).dump(b"\x00\xff", "") == "AP8="
    assert converter(Color).dump(Color.RED, "") == "red"
    assert converter(dict[int, int]).dump({1: 2}, "") == {"1": 2}
    assert converter(Node).dump(Node(name="a"), "") == {"name": "a", "children": [], "parent": None}
    assert converter(Model).dump(Model(Count=1, when=when), "") == {"Count": 1, "when": "2026-11-22T08:00:00Z"}
    assert converter(kind).dump({"a": [1]}, "") == {"a": [1]}
    assert converter(float).load(1, "") == 1.0


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "5", "x: must be int, is str '5'"),
        (int, True, "x: must be int, is bool True"),
        (bool, 1, "x: must be bool, is int 1"),
        (str, Level.LOW, "x: must be str, is Level <Level.LOW: 1>"),
        (float, float("nan"), "x: must be a finite float, is float nan"),
        (date, datetime(2026, 1, 1), "x: must be date, is datetime"),  # noqa: DTZ001
        (list[int], [1, "2"], r"x\[1\]: must be int, is str '2'"),
        (list[str], "abc", r"x: must be list\[str\], is str 'abc'"),
        (tuple[int, str], (1,), r"x: must be tuple\[int, str\]"),
        (dict[str, int], {"a": None}, r"x\['a'\]: must be int, is NoneType None"),
        (dict[str, int], {1: 1}, "a key of x: must be str, is int 1"),
        (Color, "red", "x: must be Color, is str 'red'"),
        (Literal["a", 1], True, "x: must be one of 'a', 1, is bool True"),
        (int | None, "5", r"x: must be int \| None, is str '5'"),
        (Node, Size(width=1), "x: must be Node, is dict"),
        (Node, Node(name=5), r"x\.name: must be str, is int 5"),  # type: ignore[arg-type]
        (Node | None, Node(name="a", children=[Node(name=5)]), r"x\.children\[0\]\.name: must be str"),  # type: ignore[arg-type]
        (Size, {"height": 1}, r"x\.width: is missing"),
        (Size, {"width": 1, "depth": 2}, r"x\.depth: is no key of Size"),
        (Size, {"width": "1"}, r"x\.width: must be int, is str '1'"),
        (Model, {"Count": 1}, "x: must be Model, is dict"),
        (Model, Model.model_construct(Count="a", when=None), r"x: is refused by Model: .*count"),
        (None, 0, "x: must be None, is int 0"),
        (str, "x" * 99, None),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_on_the_way_out(kind: Any, value: Any, message: str | None) -> None:
    if message is None:
        assert converter(kind).dump(value, "x") == value
        return

    with pytest.raises(ConversionError, match=rf"(?s)\A{message}"):
        converter(kind).dump(value, "x")


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, 1.5, "x: must be int, is float 1.5"),
        (UUID, "no", "x: must be UUID as text, is str 'no'"),
        (UUID, 5, "x: must be UUID as text, is int 5"),
        (bytes, "?", "x: must be bytes as text"),
        (Decimal, "1,5", "x: must be Decimal as text"),
        (datetime, "soon", "x: must be datetime as text"),
        (timedelta, 1e300, "x: must be timedelta as seconds"),
        (Color, "green", "x: must be one of 'red', 2, is str 'green'"),
        (set[int], {"a": 1}, r"x: must be set\[int\], is dict"),
        (tuple[int, ...], [1, "2"], r"x\[1\]: must be int"),
        (tuple[int, str], [1, 2], r"x\[1\]: must be str"),
        (dict[int, str], {"a": "b"}, "a key of x: must be int, is str 'a'"),
        (Node, [], "x: must be Node, is list"),
        (Node, {}, r"x\.name: is missing"),
        (Node, {"name": "a", "children": [{"name": 1}]}, r"x\.children\[0\]\.name: must be str"),
        (Size, {"height": 1}, r"x\.width: is missing"),
        (Model, {"Count": -1, "when": "soon"}, r"x\.Count: Input should be greater .*; x\.when: "),
        (list[Model], [{"when": "2026-01-01T00:00:00"}], r"x\[0\]\.Count: Field required"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_on_the_way_back(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=rf"\A{message}"):
        converter(kind).load(value, "x")


def test_what_is_new_in_an_answer_is_left_out() -> None:
    assert converter(Size).load({"width": 1, "depth": 2}, "x") == {"width": 1}
    assert converter(Node).load({"name": "a", "depth": 2}, "x") == Node(name="a")


def test_a_dataclass_may_refuse_by_itself() -> None:
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("is odd")

    with pytest.raises(ConversionError, match=r"x: is refused by Even: is odd"):
        converter(Even).load({"number": 3}, "x")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (complex, "<class 'complex'> is no type that can be carried as JSON"),
        (list[complex], r"\[\]: <class 'complex'> is no type"),
        (dict[tuple[int, int], int], "a key: "),
        (5, "5 is no type"),
    ],
    ids=str,
)
def test_types_that_json_cannot_carry_are_refused_at_once(kind: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        converter(kind)


def test_a_field_of_such_a_type_is_named() -> None:
    @dataclass
    class Signal:
        samples: list[complex]

    with pytest.raises(TypeError, match=r"\Asamples\[\]: <class 'complex'> is no type"):
        converter(Signal)


def test_values_of_a_uuid_key_go_both_ways() -> None:
    both = converter(dict[UUID, date])
    value = {uuid4(): date(2026, 1, 1)}

    assert both.load(json.loads(json.dumps(both.dump(value, "x"))), "x") == value
