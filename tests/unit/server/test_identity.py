"""Who may do what, as far as it can be told without a server: keys, scopes, limits to functions and to a rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import Mock, patch

import pytest

from homing.v1 import (
    Callback,
    DeadLetterFilter,
    Function,
    HttpOptions,
    InvocationFilter,
    InvocationSpec,
    Key,
    Payload,
)
from homing.v1.key_service_pb2 import SCOPE_ADMIN, SCOPE_INVOKE, SCOPE_OPERATE, SCOPE_READ
from homing_core.clock import now_us
from homing_server.auth.identity import ANONYMOUS, EVERYBODY, ROOT, Identity, KeyState, identity_of
from homing_server.auth.key_format import digest_of, id_of, key_in, key_of, new_key, same
from homing_server.auth.rate_limit import TokenBucket
from homing_server.auth.scopes import SCOPES, shown_scope
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


def test_whatever_a_key_is_made_of_it_has_the_form_of_one() -> None:
    for last in range(256):
        made = key_of(bytes(37) + bytes([last]))
        assert id_of(made.text) == made.id == "000000000000"


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
    limited = Identity(name="x", scopes=frozenset({SCOPE_READ}), functions=frozenset("hgfedba"))
    for selection in (InvocationFilter(), DeadLetterFilter()):
        limited.narrow(selection)
        assert list(selection.functions) == ["a", "b", "d", "e", "f", "g", "h"]
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


def test_a_key_has_what_it_was_made_with() -> None:
    key = Key(name="x", scopes=[SCOPE_OPERATE], functions=["a"], max_per_second=2.0)
    state = KeyState()
    identity = identity_of(key, state)
    assert identity == Identity(
        name="x", scopes=frozenset({SCOPE_OPERATE}), functions=frozenset({"a"}), max_per_second=2.0
    )
    assert identity.state is state
    assert identity.may(SCOPE_OPERATE)
    assert not identity.may(SCOPE_READ)
    assert "state" not in repr(identity)


def test_who_calls_without_authentication_and_without_a_key_have_no_name() -> None:
    assert EVERYBODY.name == ANONYMOUS.name == ""
    assert ANONYMOUS.scopes == {SCOPE_INVOKE}
    assert ROOT == "root"


def test_a_key_without_an_end_or_a_rate_has_none() -> None:
    identity = identity_of(Key(name="x"), KeyState())
    identity.check_in_force()
    assert (identity.expire_us, identity.max_per_second) == (0, 0.0)
    assert [identity.take_or_wait(1000) for _ in range(3)] == [0.0] * 3
    identity.take(1000)


def test_a_key_ends_at_its_time_and_not_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Identity(name="x", scopes=frozenset(), expire_us=1000)
    monkeypatch.setattr("homing_server.auth.identity.now_us", lambda: 999)
    identity.check_in_force()
    monkeypatch.setattr("homing_server.auth.identity.now_us", lambda: 1000)
    with pytest.raises(ApiError) as error:
        identity.check_in_force()
    assert reason(error) == "KEY_EXPIRED"


def test_what_is_under_way_for_a_key_that_is_revoked_is_ended() -> None:
    identity = Identity(name="x", scopes=frozenset())
    ended: list[ApiError] = []
    other: list[ApiError] = []
    with identity.ending(ended.append):
        with identity.ending(other.append):
            pass
        identity.state.revoke()
    assert [each.reason for each in ended] == ["KEY_INVALID"]
    assert other == []
    with pytest.raises(ApiError) as error, identity.ending(ended.append):
        pytest.fail("it does not begin")
    assert reason(error) == "KEY_INVALID"


def calls_at(identity: Identity) -> list[float]:
    """Return in how many seconds calls that begin now are ended."""
    loop = asyncio.get_running_loop()
    calls: list[float] = []
    handles: list[Mock] = []

    def call_later(seconds: float, end: Callable[[ApiError], None], error: ApiError) -> Mock:
        calls.append(seconds)
        end(error)
        handles.append(Mock())
        return handles[-1]

    ended: list[ApiError] = []
    with patch.object(loop, "call_later", call_later), identity.ending(ended.append):
        assert not any(handle.cancel.called for handle in handles)
    assert [each.reason for each in ended] == ["KEY_EXPIRED"] * len(calls)
    assert all(handle.cancel.called for handle in handles)
    return calls


async def test_what_is_under_way_for_a_key_is_ended_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homing_server.auth.identity.now_us", lambda: 1_000_000)
    assert calls_at(Identity(name="x", scopes=frozenset(), expire_us=3_500_000)) == [pytest.approx(2.5)]
    assert calls_at(Identity(name="x", scopes=frozenset())) == []


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (InvocationSpec(function="f", payload=Payload(data=b"p"), http=HttpOptions(path="/")), None),
        (InvocationSpec(function="f", callback=Callback(url="http://a/")), "spec.callback"),
        (InvocationSpec(function="f", labels={"a": "b"}), "spec.labels"),
    ],
)
def test_without_a_key_one_asks_for_an_answer_and_nothing_else(spec: InvocationSpec, option: str | None) -> None:
    Identity(name="x", scopes=frozenset()).check_options(spec)
    if option is None:
        ANONYMOUS.check_options(spec)
        return
    with pytest.raises(ApiError, match=rf"{option}\b") as error:
        ANONYMOUS.check_options(spec)
    assert reason(error) == "KEY_MISSING"


LIMITED = Identity(name="x", scopes=frozenset({SCOPE_READ, SCOPE_INVOKE}), functions=frozenset({"a"}))


def test_outcomes_go_to_functions_of_the_key_and_to_public_ones() -> None:
    LIMITED.check_destination(Function(name="a"))
    LIMITED.check_destination(Function(name="b", public=True))
    ANONYMOUS.check_destination(Function(name="b", public=True))
    with pytest.raises(ApiError) as error:
        LIMITED.check_destination(Function(name="b"))
    assert (reason(error), error.value.metadata) == ("FUNCTION_NOT_ALLOWED", {"function": "b"})
    with pytest.raises(ApiError) as error:
        ANONYMOUS.check_destination(Function(name="b"))
    assert reason(error) == "KEY_MISSING"


def test_every_record_is_read_with_the_scope_and_without_a_limit() -> None:
    assert Identity(name="x", scopes=frozenset({SCOPE_READ})).reads_all
    assert not Identity(name="x", scopes=frozenset({SCOPE_INVOKE})).reads_all
    assert not LIMITED.reads_all


def test_a_limited_key_that_may_invoke_reads_what_it_asked_for_itself() -> None:
    LIMITED.check_read(function="public", caller="x", caused=False)
    for caller, caused in (("other", False), ("x", True)):
        with pytest.raises(ApiError) as error:
            LIMITED.check_read(function="public", caller=caller, caused=caused)
        assert reason(error) == "FUNCTION_NOT_ALLOWED"


def test_a_limited_key_has_nothing_to_do_with_what_concerns_all_functions() -> None:
    with pytest.raises(ApiError) as error:
        LIMITED.check_unlimited("secrets are")
    assert reason(error) == "KEY_LIMITED"
    Identity(name="x", scopes=frozenset()).check_unlimited("secrets are")
    selection = InvocationFilter(functions=["any"])
    EVERYBODY.narrow(selection)
    assert list(selection.functions) == ["any"]


def test_scopes_are_named_in_one_order() -> None:
    for method, scopes in SCOPES.items():
        with pytest.raises(ApiError) as error:
            Identity(name="x", scopes=frozenset()).check_call(method)
        assert error.value.metadata == {"scope": ",".join(shown_scope(scope) for scope in sorted(scopes))}
        assert method.rpartition("/")[2] in error.value.message
        assert "/" not in error.value.message


def test_what_was_refused_takes_nothing_from_a_bucket() -> None:
    clock = Clock()
    bucket = TokenBucket(clock)
    bucket.take(4, per_second=4)
    clock.now += 0.125
    assert bucket.take(1, per_second=4) == pytest.approx(0.125)
    clock.now += 0.125
    assert bucket.take(1, per_second=4) == 0.0
