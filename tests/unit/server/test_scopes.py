"""Each method of the API needs one of the scopes that the documentation names, and no other method is served."""

from __future__ import annotations

import pytest

from homing.v1.key_service_pb2 import Scope
from homing_server.auth.identity import Identity
from homing_server.auth.scopes import (
    ALL_SCOPES,
    BATCH_METHOD,
    OWN,
    PUBLIC_METHODS,
    SCOPES,
    scopes_of,
    shown_scope,
)
from homing_server.errors import ApiError
from support.allowed import ALLOWED
from support.allowed import SCOPES as NAMES

VALUES = {name: Scope.Value(f"SCOPE_{name.value.upper()}") for name in NAMES}


def test_every_method_has_its_scopes() -> None:
    expected = {
        f"/homing.v1.{method}": frozenset(VALUES[scope] for scope in scopes) for method, scopes in ALLOWED.items()
    }
    assert expected == SCOPES
    assert {method: scopes_of(method) for method in SCOPES} == expected


@pytest.mark.parametrize("method", ALLOWED)
def test_one_of_its_scopes_is_enough_and_no_other_is(method: str) -> None:
    for name, value in VALUES.items():
        identity = Identity(name="x", scopes=frozenset({value}))
        if name in ALLOWED[method]:
            identity.check_call(f"/homing.v1.{method}")
        else:
            with pytest.raises(ApiError) as error:
                identity.check_call(f"/homing.v1.{method}")
            assert error.value.reason == "SCOPE_MISSING"


def test_a_method_that_is_not_in_the_table_has_none() -> None:
    assert scopes_of("/homing.v1.KeyService/NewOne") == frozenset()


def test_all_scopes_are_those_of_the_api() -> None:
    assert set(VALUES.values()) == ALL_SCOPES == set(Scope.values()) - {0}
    assert {VALUES[name] for name in NAMES if name.value.upper() in {"INVOKE", "READ"}} == OWN
    assert [shown_scope(scope) for scope in sorted(ALL_SCOPES)] == ["invoke", "read", "operate", "deploy", "admin"]


def test_without_a_key_one_invokes_and_does_nothing_else() -> None:
    invoking = {"Invoke", "InvokeStream", "InvokeAsync", "BatchInvokeAsync"}
    assert {f"/homing.v1.InvocationService/{name}" for name in invoking} == PUBLIC_METHODS
    assert BATCH_METHOD == "/homing.v1.InvocationService/BatchInvokeAsync"
