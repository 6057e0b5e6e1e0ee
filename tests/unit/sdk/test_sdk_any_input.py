"""Whatever numbers, times and texts the SDK is given: what cannot be is refused by an error of its own."""

from __future__ import annotations

import inspect
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import homing
from homing import Client, HomingError
from homing.testing import FakeServer
from homing.testing._server import METHODS

TEXTS: Final = ("", "\udcff", "\0", "\r\n", "x" * 70_000, "é", "9" * 5000, "https://[", "a" * 36)
NUMBERS: Final = (0, -1, 0.5, 1e308, math.nan, math.inf, -math.inf, 10**400, -(10**400), 2**63, 2**31, 1e-300)
SPANS: Final = (timedelta.max, timedelta.min, timedelta(0), timedelta(days=3_000_000), timedelta(microseconds=1))
TIMES: Final = tuple(
    moment.replace(tzinfo=zone)
    for moment in (datetime.min, datetime.max, datetime(2026, 11, 22))  # noqa: DTZ001, DTZ901 - each gets a zone
    for zone in (UTC, timezone(timedelta(hours=-14)), timezone(timedelta(hours=14)), None)
)


class NoTime(tzinfo):
    """A time zone that does not know what it is."""

    def utcoffset(self, _: datetime | None, /) -> None:
        return None

    def dst(self, _: datetime | None, /) -> None:
        return None

    def tzname(self, _: datetime | None, /) -> None:
        return None


any_text = st.text(st.characters(exclude_categories=()), max_size=20)
ANY: Final = st.one_of(
    st.sampled_from((*TEXTS, *NUMBERS, *SPANS, *TIMES, datetime(2026, 1, 1, tzinfo=NoTime()))),
    any_text,
    st.integers(),
    st.floats(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-14)))),
)
NESTED: Final = st.one_of(
    ANY,
    st.lists(ANY, max_size=3),
    st.dictionaries(any_text, ANY | st.lists(ANY, max_size=2), max_size=3),
    st.builds(
        homing.RetryPolicy,
        max_attempts=ANY,
        initial_backoff=ANY,
        backoff_multiplier=ANY,
        max_backoff=ANY,
        retry_status_codes=st.lists(ANY, max_size=2),
        max_retry_after=ANY,
    ),
    st.builds(homing.Limits, memory_bytes=ANY, cpu_millis=ANY, pids=ANY),
)

GIVEN: Final[Mapping[str, Any]] = {
    "function": "f",
    "name": "f",
    "what": "f",
    "invocation_id": "01900000-0000-7000-8000-000000000001",
    "dead_letter_id": "01900000-0000-7000-8000-000000000001",
    "key": "k",
    "body": "b",
    "key_id": "k",
    "value": "v",
    "scopes": ["invoke"],
    "items": ["x"],
    "values": ["x"],
    "payloads": ["x"],
}
"""What is said where something must be."""
NOT_VARIED: Final = frozenset({"self", "on_progress", "input", "output"})
SOON: Final = 0.05
"""Calls that might wait, as those with nonsense for an id, are over after so many seconds."""


def _owners() -> Iterator[tuple[str, type, Callable[[Client], Any]]]:
    yield "client", Client, lambda client: client
    for name in ("functions", "keys", "dead_letters", "secrets", "signing_keys"):
        yield name, type(getattr(Client("localhost:1"), name)), operator.attrgetter(name)
    yield "handle", homing.InvocationHandle, lambda client: client.handle(GIVEN["invocation_id"])
    yield "typed", homing.TypedFunction, lambda client: client.function("f", input=str, output=str)


def _parameters(method: Callable[..., Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a method must be given, by name or by place, and which of its parameters there are."""
    needed: dict[str, Any] = {}
    names: list[str] = []
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            names += getattr(homing, str(parameter.annotation)[len("Unpack[") : -1]).__annotations__
            continue
        if parameter.default is parameter.empty and name != "self":
            needed[name] = GIVEN[name]
        names.append(name)
    return needed, [name for name in names if name not in NOT_VARIED]


METHODS_OF_SDK: Final = [
    pytest.param(owner, getattr(kind, name), id=f"{label}.{name}")
    for label, kind, owner in _owners()
    for name, _ in inspect.getmembers(kind, inspect.isfunction)
    if (not name.startswith("_") or name == "__call__") and name not in {"close", "function"}
]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        # A watch of what never comes would never end.
        fake.refuse("WatchResults", grpc.StatusCode.INVALID_ARGUMENT, times=100_000)
        yield fake


@pytest.mark.parametrize(("owner", "method"), METHODS_OF_SDK)
def test_nothing_but_errors_of_the_sdk_come_out(
    server: FakeServer, owner: Callable[[Client], Any], method: Callable[..., Any]
) -> None:
    needed, names = _parameters(method)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        arguments = dict(needed)
        if names:
            varied = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
            arguments |= {name: data.draw(NESTED) for name in varied}
        if "timeout" in names:
            arguments.setdefault("timeout", SOON)
        with suppress(HomingError, TypeError):
            _finish(_call(method, owner(client), arguments))

    server.function("f")
    with Client(server.target, timeout=SOON) as client:
        check()


def _call(method: Callable[..., Any], owner: Any, arguments: dict[str, Any]) -> Any:
    places = [
        arguments.pop(name)
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is parameter.POSITIONAL_ONLY and name in arguments
    ]
    return method(owner, *places, **arguments)


def _finish(result: Any) -> None:
    """Read the beginning of what is an iterator: many do nothing before."""
    if hasattr(result, "__next__"):
        list(itertools.islice(result, 2))
    if hasattr(result, "close"):
        result.close()


@pytest.mark.parametrize("name", ["target", "api_key", "tls_ca", "tls_cert", "tls_key", "timeout", "use_proxy"])
@settings(max_examples=60, deadline=None)
@given(value=NESTED)
def test_nor_out_of_a_client_that_is_made(name: str, value: Any) -> None:
    with suppress(HomingError, TypeError):
        homing.Client(**{name: value}).close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": {"name": "\udcff"}}, r"query\['name'\]: is not valid Unicode text"),
        ({"query": {"\udcff": "x"}}, "a key of query: is not valid Unicode text"),
        (
            {"schedule_time": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
            "schedule_time: must be from the year 1 to the year 9999 in UTC, is 9999-12-31T23:59:59.999999-14:00",
        ),
        ({"schedule_time": datetime.max.replace(tzinfo=UTC)}, "schedule_time: must be at most 30 days ahead"),
        (
            {"delay": timedelta(days=3_000_000)},
            r"spec.delay: must be more than 0 s and at most 2592000 s, is 259200000000 s",
        ),
        ({"max_age": 10**400}, "max_age: must be a number of seconds that a float can carry"),
        ({"retry_policy": homing.RetryPolicy(backoff_multiplier=10**400)}, "backoff_multiplier: must be a number that"),
    ],
    ids=str,
)
def test_the_field_and_the_limit_are_named(server: FakeServer, options: dict[str, Any], message: str) -> None:
    server.function("f")
    with Client(server.target) as client, pytest.raises(homing.InvalidRequestError, match=message):
        client.invoke_async("f", "x", **options)


def test_every_method_of_the_api_can_be_refused() -> None:
    assert {"Invoke", "InvokeAsync", "WatchResults", "DeployFunction", "CreateKey"} <= METHODS
