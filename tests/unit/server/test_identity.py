"""Who may do what, as far as it can be told without a server: keys, scopes, limits to functions and to a rate."""

from __future__ import annotations

import pytest

from homing.v1 import DeadLetterFilter, InvocationFilter, Key
from homing.v1.key_service_pb2 import SCOPE_ADMIN, SCOPE_INVOKE, SCOPE_OPERATE, SCOPE_READ
from homing_core.clock import now_us
from homing_server.auth.identity import ANONYMOUS, EVERYBODY, Identity, KeyState, identity_of
from homing_server.auth.key_format import digest_of, id_of, key_in, new_key, same
from homing_server.auth.rate_limit import TokenBucket
from homing_server.auth.scopes import SCOPES
from homing_server.errors import ApiError, Code


def reason(error: pytest.ExceptionInfo[ApiError]) -> str:
    return error.value.reason


def test_a_key_has_its_id_in_it_and_shows_itself_nowhere() -> None:
    made = new_key()
    assert id_of(made.text) == made.id
    assert made.text not in repr(made)
    assert new_key().text != made.text
    assert same(digest_of(made.text), digest_of(made.text))
    assert not same(digest_of(made.text), digest_of(made.text + "x"))
    for other in ("", "hk_", made.text + "x", made.text[:-1], made.text.upper(), "x" + made.text):
        assert id_of(other) is None


@pytest.mark.parametrize(
    ("authorization", "key"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("abc", ""), ("Bearer", ""), ("", "")],
)
def test_a_key_is_shown_as_a_bearer(authorization: str, key: str) -> None:
    assert key_in(authorization) == key


def test_without_authentication_everything_is_allowed() -> None:
    for method in SCOPES:
        EVERYBODY.check_call(method)
    assert EVERYBODY.covers("any")
    assert EVERYBODY.reads_all


def test_a_method_that_nobody_thought_of_is_refused_to_everybody() -> None:
    with pytest.raises(ApiError) as error:
        EVERYBODY.check_call("/homing.v1.InvocationService/New")
    assert (error.value.code, reason(error)) == (Code.UNIMPLEMENTED, "NOT_SERVED")
    assert error.value.metadata == {"method": "/homing.v1.InvocationService/New"}


def test_the_missing_scope_is_named() -> None:
    with pytest.raises(ApiError) as error:
        Identity(name="x", scopes=frozenset({SCOPE_READ})).check_call("/homing.v1.InvocationService/BulkStop")
    assert error.value.metadata == {"scope": "operate"}
    with pytest.raises(ApiError) as error:
        Identity(name="x", scopes=frozenset({SCOPE_ADMIN})).check_call("/homing.v1.InvocationService/GetInvocation")
    assert error.value.metadata == {"scope": "invoke,read"}


def test_a_filter_is_narrowed_to_the_functions_of_the_key() -> None:
    limited = Identity(name="x", scopes=frozenset({SCOPE_READ}), functions=frozenset({"b", "a"}))
    for selection in (InvocationFilter(), DeadLetterFilter()):
        limited.narrow(selection)
        assert list(selection.functions) == ["a", "b"]
    selection = InvocationFilter(functions=["a"])
    limited.narrow(selection)
    assert list(selection.functions) == ["a"]
    with pytest.raises(ApiError) as error:
        limited.narrow(InvocationFilter(functions=["a", "c"]))
    assert reason(error) == "FUNCTION_NOT_ALLOWED"
    selection = InvocationFilter()
    EVERYBODY.narrow(selection)
    assert not selection.functions


def test_records_are_read_by_scope_by_function_and_by_who_asked_for_them() -> None:
    reader = Identity(name="reader", scopes=frozenset({SCOPE_READ}), functions=frozenset({"a"}))
    reader.check_read(function="a", caller="other", caused=False)
    with pytest.raises(ApiError) as error:
        reader.check_read(function="b", caller="reader", caused=False)
    assert reason(error) == "FUNCTION_NOT_ALLOWED"
    caller = Identity(name="shop", scopes=frozenset({SCOPE_INVOKE}))
    caller.check_read(function="a", caller="shop", caused=False)
    with pytest.raises(ApiError) as error:
        caller.check_read(function="a", caller="other", caused=False)
    assert (reason(error), error.value.metadata) == ("SCOPE_MISSING", {"scope": "read"})


def test_what_was_caused_is_not_one_s_own_beyond_the_limit_of_a_key() -> None:
    shop = Identity(name="shop", scopes=frozenset({SCOPE_INVOKE}), functions=frozenset({"a"}))
    shop.check_read(function="public", caller="shop", caused=False)
    shop.check_read(function="a", caller="shop", caused=True)
    with pytest.raises(ApiError) as error:
        shop.check_read(function="b", caller="shop", caused=True)
    assert reason(error) == "FUNCTION_NOT_ALLOWED"


def test_a_key_that_is_no_text_is_like_any_wrong_one() -> None:
    assert not same(digest_of(new_key().text), digest_of("\udcff"))


def test_who_is_unknown_is_told_to_show_a_key() -> None:
    assert not ANONYMOUS.covers("a")
    with pytest.raises(ApiError) as error:
        ANONYMOUS.check_function("a")
    assert reason(error) == "KEY_MISSING"


def test_who_is_unknown_has_nothing_to_do_with_what_concerns_all_functions() -> None:
    with pytest.raises(ApiError) as error:
        ANONYMOUS.check_unlimited("secrets are")
    assert reason(error) == "KEY_MISSING"
    with pytest.raises(ApiError) as error:
        ANONYMOUS.narrow(InvocationFilter())
    assert reason(error) == "KEY_MISSING"


def test_a_key_ends() -> None:
    state = KeyState()
    key = Key(name="x", scopes=[SCOPE_OPERATE])
    key.expire_time.FromMicroseconds(now_us() + 60_000_000)
    identity = identity_of(key, state)
    identity.check_in_force()
    state.revoked = True
    with pytest.raises(ApiError) as error:
        identity.check_in_force()
    assert reason(error) == "KEY_INVALID"
    key.expire_time.FromMicroseconds(now_us() - 1)
    with pytest.raises(ApiError) as error:
        identity_of(key, state).check_in_force()
    assert reason(error) == "KEY_EXPIRED"


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_what_fits_into_a_second() -> None:
    clock = Clock()
    bucket = TokenBucket(clock)
    assert [bucket.take(1, per_second=4) for _ in range(4)] == [0.0] * 4
    assert bucket.take(1, per_second=4) == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.take(1, per_second=4) == 0.0
    assert bucket.take(1, per_second=4) == pytest.approx(0.25)
    clock.now += 3600
    assert [bucket.take(1, per_second=4) > 0 for _ in range(5)] == [False] * 4 + [True]


def test_a_slow_bucket_holds_one() -> None:
    clock = Clock()
    bucket = TokenBucket(clock)
    assert bucket.take(1, per_second=0.1) == 0.0
    assert bucket.take(1, per_second=0.1) == pytest.approx(10.0)
    clock.now += 10.0
    assert bucket.take(1, per_second=0.1) == 0.0


def test_what_is_larger_than_the_bucket_passes_once_it_is_full_and_is_worked_off() -> None:
    clock = Clock()
    bucket = TokenBucket(clock)
    assert bucket.take(10, per_second=4) == 0.0
    assert bucket.take(1, per_second=4) == pytest.approx(7 / 4)
    clock.now += 1.75
    assert bucket.take(1, per_second=4) == 0.0
    assert bucket.take(10, per_second=4) == pytest.approx(1.0)


def test_the_error_of_a_rate_says_when() -> None:
    identity = Identity(
        name="x", scopes=frozenset(), max_per_second=1000.0, state=KeyState(bucket=TokenBucket(Clock()))
    )
    identity.take(1000)
    with pytest.raises(ApiError) as error:
        identity.take()
    assert error.value.retry_after == pytest.approx(0.001)
