from __future__ import annotations

import math
import random
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homing.v1 import policy_pb2
from homing_core import limits
from homing_core.retry import (
    RETRY_HEADER,
    DelayReason,
    FailedAttempt,
    FinalReason,
    RetryAdvice,
    RetryDecision,
    RetryPolicy,
    parse_retry_after,
    resolve_attempt_timeout,
)

# The machine may be busy; slowness is no failure here.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOW = 1_700_000_000.0

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, limits.MAX_ATTEMPTS),
    initial_backoff=st.floats(0.0, 3600.0),
    backoff_multiplier=st.floats(1.0, 1e6),
    max_backoff=st.floats(0.0, limits.MAX_BACKOFF),
    retry_status_codes=st.sampled_from([frozenset({400}), frozenset({503}), limits.RETRY_STATUS_CODES]),
    max_retry_after=st.floats(0.0, 3600.0),
)
failures = st.builds(
    FailedAttempt,
    status_code=st.sampled_from([0, 400, 404, 429, 500, 503]),
    permanent=st.booleans(),
    advice=st.builds(
        RetryAdvice,
        after=st.one_of(st.text(max_size=40), st.sampled_from(["0", "1", "7", "99999999999999999999999", "-1", "nan"])),
        refused=st.booleans(),
        by_carrier=st.booleans(),
    ),
)


def decide(policy: RetryPolicy, failed: FailedAttempt, attempts: int = 1, seed: int = 1) -> RetryDecision:
    return policy.decide(failed, attempts=attempts, now=NOW, rng=random.Random(seed))


def test_defaults_are_those_of_the_limits() -> None:
    assert RetryPolicy.resolve(None, None) == RetryPolicy()
    assert RetryPolicy.resolve(policy_pb2.RetryPolicy(), policy_pb2.RetryPolicy()) == RetryPolicy()


def test_each_field_comes_from_the_invocation_then_from_the_function() -> None:
    spec = policy_pb2.RetryPolicy(max_attempts=1, max_backoff=Duration(seconds=9), retry_status_codes=[500])
    function = policy_pb2.RetryPolicy(
        max_attempts=7,
        initial_backoff=Duration(nanos=500_000_000),
        backoff_multiplier=3.0,
        max_backoff=Duration(seconds=60),
        retry_status_codes=[418],
        max_retry_after=Duration(seconds=5),
    )

    assert RetryPolicy.resolve(spec, function) == RetryPolicy(
        max_attempts=1,
        initial_backoff=0.5,
        backoff_multiplier=3.0,
        max_backoff=9.0,
        retry_status_codes=frozenset({500}),
        max_retry_after=5.0,
    )


def test_a_zero_that_was_set_is_kept() -> None:
    spec = policy_pb2.RetryPolicy(initial_backoff=Duration(), max_retry_after=Duration())
    function = policy_pb2.RetryPolicy(initial_backoff=Duration(seconds=4), max_retry_after=Duration(seconds=4))

    policy = RetryPolicy.resolve(spec, function)

    assert policy.initial_backoff == 0.0
    assert policy.max_retry_after == 0.0


def test_attempt_timeout_of_the_invocation_wins() -> None:
    assert resolve_attempt_timeout(None, None) == limits.DEFAULT_ATTEMPT_TIMEOUT
    assert resolve_attempt_timeout(None, Duration(seconds=3)) == 3.0
    assert resolve_attempt_timeout(Duration(nanos=250_000_000), Duration(seconds=3)) == 0.25


@pytest.mark.parametrize("status", sorted(limits.RETRY_STATUS_CODES))
def test_statuses_of_the_table_are_retried(status: int) -> None:
    decision = decide(RetryPolicy(), FailedAttempt(status_code=status))

    assert decision.reason is DelayReason.BACKOFF
    assert decision.delay is not None


@pytest.mark.parametrize("status", [300, 302, 400, 401, 403, 404, 409, 413, 422, 501, 505])
def test_other_statuses_are_final(status: int) -> None:
    decision = decide(RetryPolicy(), FailedAttempt(status_code=status))

    assert decision == RetryDecision(delay=None, reason=FinalReason.NOT_RETRIED)


def test_an_attempt_without_an_answer_is_retried_whatever_the_statuses() -> None:
    decision = decide(RetryPolicy(retry_status_codes=frozenset({418})), FailedAttempt())

    assert decision.reason is DelayReason.BACKOFF


def test_a_permanent_failure_is_final() -> None:
    assert decide(RetryPolicy(), FailedAttempt(permanent=True)).reason is FinalReason.NOT_RETRIED


def test_the_last_attempt_is_final() -> None:
    failed = FailedAttempt(status_code=503, advice=RetryAdvice(after="1"))

    assert decide(RetryPolicy(max_attempts=3), failed, attempts=2).delay == 1.0
    assert decide(RetryPolicy(max_attempts=3), failed, attempts=3).reason is FinalReason.ATTEMPTS_USED_UP
    assert decide(RetryPolicy(max_attempts=3), failed, attempts=4).reason is FinalReason.ATTEMPTS_USED_UP


def test_a_function_can_refuse_retries() -> None:
    failed = FailedAttempt(status_code=503, advice=RetryAdvice.of(after="1", retry=["later", " No "]))

    assert decide(RetryPolicy(), failed) == RetryDecision(delay=None, reason=FinalReason.FUNCTION_REFUSED)


def test_retry_after_wins_over_backoff_and_is_capped() -> None:
    policy = RetryPolicy(max_retry_after=10.0)

    assert decide(policy, FailedAttempt(status_code=429, advice=RetryAdvice(after="7"))) == RetryDecision(
        delay=7.0, reason=DelayReason.RETRY_AFTER
    )
    assert decide(policy, FailedAttempt(status_code=429, advice=RetryAdvice(after="3600"))).delay == 10.0


def test_retry_after_may_be_a_date() -> None:
    in_a_minute = format_datetime(datetime.fromtimestamp(NOW + 60, UTC), usegmt=True)

    assert parse_retry_after(in_a_minute, now=NOW) == 60.0
    assert parse_retry_after(in_a_minute, now=NOW + 61) == 0.0


@pytest.mark.parametrize("value", ["", " ", "soon", "-1", "1.5", "nan", "inf", "٣", "Mon, 99 Foo 2020 99:99:99 GMT"])
def test_senseless_retry_after_is_ignored(value: str) -> None:
    assert parse_retry_after(value, now=NOW) is None
    assert decide(RetryPolicy(), FailedAttempt(advice=RetryAdvice(after=value))).reason is DelayReason.BACKOFF


def test_bounds_grow_up_to_the_cap() -> None:
    policy = RetryPolicy(initial_backoff=1.0, backoff_multiplier=2.0, max_backoff=10.0)

    assert [policy.backoff_bound(n) for n in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert RetryPolicy(backoff_multiplier=1e6).backoff_bound(limits.MAX_ATTEMPTS) == limits.DEFAULT_MAX_BACKOFF


def test_jitter_is_full() -> None:
    policy = RetryPolicy(initial_backoff=8.0)
    rng = random.Random(1)

    delays = [policy.decide(FailedAttempt(), attempts=1, now=NOW, rng=rng).delay or 0.0 for _ in range(2000)]

    assert min(delays) < 0.1
    assert max(delays) > 7.9
    assert sum(delays) / len(delays) == pytest.approx(4.0, abs=0.3)


@patient
@given(policy=policies, failed=failures, attempts=st.integers(1, 200), seed=st.integers())
def test_a_delay_keeps_its_bounds(policy: RetryPolicy, failed: FailedAttempt, attempts: int, seed: int) -> None:
    decision = decide(policy, failed, attempts, seed)

    if decision.delay is None:
        assert isinstance(decision.reason, FinalReason)
    elif decision.reason is DelayReason.RETRY_AFTER:
        assert 0.0 <= decision.delay <= policy.max_retry_after
    else:
        assert decision.reason is DelayReason.BACKOFF
        assert 0.0 <= decision.delay <= policy.backoff_bound(attempts) <= policy.max_backoff


@patient
@given(policy=policies, failed=failures, attempts=st.integers(1, 200))
def test_attempts_never_exceed_the_policy(policy: RetryPolicy, failed: FailedAttempt, attempts: int) -> None:
    decision = decide(policy, failed, attempts)

    assert (decision.delay is not None) == (policy.is_retried(failed) and attempts < policy.max_attempts)


@patient
@given(st.text(max_size=60))
def test_no_header_breaks_the_parser(value: str) -> None:
    parsed = parse_retry_after(value, now=NOW)

    assert parsed is None or parsed >= 0.0


@pytest.mark.parametrize(
    ("retry", "refused"),
    [([], False), (["yes"], False), (["no"], True), (["yes", " NO "], True), (["", "nope"], False)],
)
def test_advice_is_read_from_the_headers_of_an_answer(retry: list[str], *, refused: bool) -> None:
    assert RetryAdvice.of(after="3", retry=retry) == RetryAdvice(after="3", refused=refused)


def test_what_says_nothing_gives_no_advice() -> None:
    assert RetryAdvice() == RetryAdvice(after="", refused=False)
    assert RETRY_HEADER == "x-homing-retry"


def test_what_a_function_refuses_is_not_retried_however_it_failed() -> None:
    for failed in (FailedAttempt(), FailedAttempt(status_code=503)):
        assert RetryPolicy().is_retried(failed)
    assert not RetryPolicy().is_retried(FailedAttempt(status_code=503, advice=RetryAdvice(refused=True)))
    assert not RetryPolicy().is_retried(FailedAttempt(status_code=503, permanent=True))


@pytest.mark.parametrize("status", [400, 404, 429, 500, 501])
def test_what_comes_from_the_carrier_of_a_function_is_retried_whatever_its_status(status: int) -> None:
    policy = RetryPolicy(retry_status_codes=frozenset({503}))
    advice = RetryAdvice.of(after="", retry=[], carrier="faas-middleware")

    assert not policy.is_retried(FailedAttempt(status_code=status))
    assert policy.is_retried(FailedAttempt(status_code=status, advice=advice))
    assert not policy.is_retried(FailedAttempt(status_code=status, permanent=True, advice=advice))
    assert not policy.is_retried(
        FailedAttempt(status_code=status, advice=RetryAdvice.of(after="", retry=["no"], carrier="of-watchdog"))
    )
    assert decide(RetryPolicy(max_attempts=1), FailedAttempt(status_code=status, advice=advice)).delay is None


def test_reasons_are_stored_by_their_names() -> None:
    for reason in (*DelayReason, *FinalReason):
        assert reason.value == reason.name


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (" 7 ", 7.0),
        ("9" * 18, 1e18),
        ("9" * 19, math.inf),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:30 -0000", 10.0),
        ("Tue, 14 Nov 2023 22:13:30 +0100", 0.0),
        ("Tue, 14 Nov 2023 22:13:30 -0100", 3610.0),
    ],
)
def test_retry_after_is_read_to_the_letter(value: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        asked = parse_retry_after(value, now=NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert asked == pytest.approx(seconds)
