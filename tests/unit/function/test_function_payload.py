"""How the body of a request becomes the argument of a function: by its type."""

import inspect
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest

from homing_function import InvalidInputError
from homing_function.payload import Payload

JSON = "application/json"
MISSING = inspect.Parameter.empty


class Fit(Enum):
    FILL = "fill"


@dataclass
class Size:
    width: int
    height: int = 1


@dataclass
class Job:
    size: Size
    tags: list[str] = field(default_factory=list)
    fit: Fit = Fit.FILL


class Order(TypedDict):
    number: int
    note: NotRequired[str]


class Model(pydantic.BaseModel):
    count: int
    at: datetime | None = None


def value(hint: Any, body: bytes, content_type: str = JSON, default: Any = MISSING) -> Any:
    parameter = inspect.Parameter("job", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
    return Payload.of(parameter, hint).value(body, content_type)


@pytest.mark.parametrize(
    ("hint", "body", "expected"),
    [
        (bytes, b"\xff\x00", b"\xff\x00"),
        (bytes, b"", b""),
        (str, "grün".encode(), "grün"),
        (str, b"", ""),
        (str, b'"as it is"', '"as it is"'),
        (Annotated[str, "text"], b"x", "x"),
        (str | None, b"x", "x"),
        (str | None, b"", None),
        (bytes | None, b"x", b"x"),
        (int, b"5", 5),
        (float, b"5", 5.0),
        (bool, b"true", True),
        (dict, b'{"a": [1]}', {"a": [1]}),
        (list[int], b"[1, 2]", [1, 2]),
        (dict[str, Size], b'{"a": {"width": 2}}', {"a": Size(2)}),
        (Literal["a", 1], b"1", 1),
        (Size, b'{"width": 3, "height": 4, "depth": 5}', Size(3, 4)),
        (Job, b'{"size": {"width": 3}, "fit": "fill"}', Job(Size(3))),
        (Size | None, b"", None),
        (Size | None, b"null", None),
        (Order, b'{"number": 1}', {"number": 1}),
        (Model, b'{"count": 1, "at": "2026-01-02T00:00:00Z"}', Model(count=1, at=datetime(2026, 1, 2, tzinfo=UTC))),
        (Any, b'{"a": 1}', {"a": 1}),
        (Any, b"", None),
        (MISSING, b"[1]", [1]),
        (datetime, b'"2026-01-02T03:04:05+00:00"', datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
    ids=str,
)  # fmt: skip
def test_a_body_becomes_a_value_of_the_type(hint: Any, body: bytes, expected: Any) -> None:
    got = value(hint, body)

    assert got == expected
    assert type(got) is type(expected)


def test_what_has_no_type_goes_by_the_content_type() -> None:
    assert value(MISSING, b"[1]", "text/plain") == "[1]"
    assert value(MISSING, b"[1]", "application/cloudevents+json; charset=utf-8") == [1]
    assert value(MISSING, b"[1]", "application/octet-stream") == b"[1]"
    assert value(MISSING, b"[1]", "") == "[1]"


def test_an_empty_body_is_the_default_where_there_is_one() -> None:
    assert value(Size, b"", default=Size(7)) == Size(7)
    assert value(str, b"", default="you") == "you"
    assert value(str, b"me", default="you") == "me"


@pytest.mark.parametrize(
    ("hint", "body", "told"),
    [
        (Size, b"{}", "job.width: is missing"),
        (Size, b"[]", "job: must be Size, is list []"),
        (Size, b'{"width": "3"}', "job.width: must be int, is str '3'"),
        (Size, b'{"width": true}', "job.width: must be int, is bool True"),
        (Size, b"{", "job: is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (Size, b"", "job: must be JSON, and the body is empty"),
        (Size, b"\xff", "job: is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (Job, b'{"size": {"width": 1}, "tags": ["a", 2]}', "job.tags[1]: must be str, is int 2"),
        (Job, b'{"size": {"width": 1}, "fit": "tile"}', "job.fit: must be one of 'fill', is str 'tile'"),
        (Order, b'{"note": "x"}', "job.number: is missing"),
        (dict[str, int], b'{"a": "b"}', "job['a']: must be int, is str 'b'"),
        (str, b"\xff", "job: is not UTF-8: invalid start byte at byte 0"),
        (
            Model,
            b'{"count": "many"}',
            "job.count: Input should be a valid integer, unable to parse string as an integer",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_the_name_of_the_field(hint: Any, body: bytes, told: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        value(hint, body)

    assert str(refused.value) == told
    assert refused.value.violations[0].field == told.partition(": ")[0]


def test_all_that_a_model_refuses_is_told() -> None:
    with pytest.raises(InvalidInputError) as refused:
        value(Model, b'{"at": 1.5e300}')

    assert [violation.field for violation in refused.value.violations] == ["job.count", "job.at"]
