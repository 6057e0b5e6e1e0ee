"""Until when attempts may start and run, and what is done about dispatches that may be poison."""

from __future__ import annotations

import pytest

from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import HttpOptions, Payload
from homing_core import limits
from homing_core.clock import now_us
from homing_core.wire.v1 import BodyAccess, Token
from homing_worker.execution.dispatch import Bounds, Dispatch, TooLateError
from homing_worker.execution.poison import PoisonRisk
from homing_worker.execution.request import USER_AGENT, RequestHead
from support.http_headers import headers_of

SECOND = 1_000_000


def in_seconds(seconds: float) -> int:
    return now_us() + round(seconds * SECOND)


def test_without_bounds_an_attempt_may_start_and_run_as_long_as_it_is_configured() -> None:
    free = Bounds()

    free.check_start(first=True)
    assert free.start_timeout(first=True) is None
    assert free.attempt_timeout(300.0) == 300.0
    assert free.waits_here(limits.SHORT_RETRY_DELAY)
    assert not free.waits_here(limits.SHORT_RETRY_DELAY + 0.001)


def test_only_the_first_attempt_has_to_start_in_time() -> None:
    late = Bounds(start_by_us=in_seconds(-1))

    with pytest.raises(TooLateError):
        late.check_start(first=True)
    assert late.start_timeout(first=True) == 0.0
    late.check_start(first=False)
    assert late.start_timeout(first=False) is None
    assert late.attempt_timeout(300.0) == 300.0
    timeout = Bounds(start_by_us=in_seconds(30)).start_timeout(first=True)
    assert timeout is not None
    assert 25 < timeout <= 30


def test_a_deadline_bounds_every_attempt_and_every_backoff() -> None:
    bounds = Bounds(deadline_us=in_seconds(30))

    bounds.check_start(first=False)
    assert 25 < bounds.attempt_timeout(300.0) <= 30
    assert bounds.attempt_timeout(1.0) == 1.0
    assert bounds.waits_here(20.0)
    assert not bounds.waits_here(31.0)
    for first in (True, False):
        timeout = bounds.start_timeout(first=first)
        assert timeout is not None
        assert 25 < timeout <= 30

    passed = Bounds(deadline_us=in_seconds(-1))
    with pytest.raises(TooLateError):
        passed.check_start(first=False)
    assert passed.start_timeout(first=False) == 0.0
    assert passed.attempt_timeout(300.0) == 0.0
    assert not passed.waits_here(0.0)


@pytest.mark.parametrize(
    ("lost", "redeliveries", "redelivered", "quarantined", "suspected"),
    [
        (0, 0, False, False, False),
        (0, 1, True, False, False),
        (1, 0, True, False, False),
        # Three deliveries of one message may have been three starts: the store is asked.
        (0, 2, True, True, True),
        (2, 0, True, True, False),
        (1, 1, True, True, False),
        (2, 1, True, True, True),
        (3, 0, True, True, True),
    ],
)
def test_what_was_redelivered_may_be_poison(
    lost: int, redeliveries: int, *, redelivered: bool, quarantined: bool, suspected: bool
) -> None:
    risk = PoisonRisk(prior_lost_starts=lost, redelivery_count=redeliveries)

    assert (risk.redelivered, risk.quarantined, risk.suspected) == (redelivered, quarantined, suspected)


def dispatch(spec: InvocationSpec, traceparent: str = "") -> Dispatch:
    return Dispatch(
        invocation_id="i",
        spec=spec,
        token=Token(generation=1),
        create_us=5 * SECOND,
        function_revision=1,
        traceparent=traceparent,
        bodies=BodyAccess(),
    )


def test_a_request_has_defaults() -> None:
    head = RequestHead(dispatch(InvocationSpec()))

    assert (head.method, head.target) == ("POST", "/")
    assert head.headers(attempt=1, deadline=0.0, progress_url="") == [
        ("Content-Type", "application/octet-stream"),
        ("X-Call-Id", "i"),
        ("X-Start-Time", str(5 * SECOND * 1000)),
        ("User-Agent", USER_AGENT),
        ("X-Homing-Attempt", "1"),
        ("X-Homing-Deadline", "1970-01-01T00:00:00.000Z"),
    ]


def test_a_call_id_is_shown_in_place_of_the_id_which_then_has_a_header_of_its_own() -> None:
    headers = RequestHead(dispatch(InvocationSpec(call_id="order-7"))).headers(attempt=1, deadline=0.0, progress_url="")

    assert [value for name, value in headers if name in {"X-Call-Id", "X-Homing-Invocation-Id"}] == ["order-7", "i"]


def test_headers_of_an_invocation_do_not_replace_those_of_homing() -> None:
    given = headers_of(
        [
            ("x-call-id", "forged"),
            ("X-Mine", "a"),
            ("TRACEPARENT", "forged"),
            ("x-homing-attempt", "9"),
            ("x-mine", "b"),
        ]
    )
    http = HttpOptions(method="PUT", path="/a b/ü", query="q=1&r=ä b", headers=given)
    head = RequestHead(dispatch(InvocationSpec(http=http, payload=Payload(content_type="text/plain")), "00-1"))

    assert (head.method, head.target) == ("PUT", "/a%20b/%C3%BC?q=1&r=%C3%A4%20b")
    assert head.headers(attempt=2, deadline=1.5, progress_url="http://here/p") == [
        ("X-Mine", "a"),
        ("X-Mine", "b"),
        ("Content-Type", "text/plain"),
        ("X-Call-Id", "i"),
        ("X-Start-Time", str(5 * SECOND * 1000)),
        ("traceparent", "00-1"),
        ("User-Agent", USER_AGENT),
        ("X-Homing-Attempt", "2"),
        ("X-Homing-Deadline", "1970-01-01T00:00:01.500Z"),
        ("X-Homing-Progress-Url", "http://here/p"),
    ]
