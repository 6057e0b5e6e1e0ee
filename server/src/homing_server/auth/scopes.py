"""Which scope each method of the API needs. A method that is not in the table is refused to everybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from homing.v1.key_service_pb2 import SCOPE_ADMIN, SCOPE_DEPLOY, SCOPE_INVOKE, SCOPE_OPERATE, SCOPE_READ, Scope

Scopes = frozenset[Scope.ValueType]

ALL_SCOPES: Final[Scopes] = frozenset({SCOPE_INVOKE, SCOPE_READ, SCOPE_OPERATE, SCOPE_DEPLOY, SCOPE_ADMIN})
OWN: Final[Scopes] = frozenset({SCOPE_INVOKE, SCOPE_READ})
"""To read what one has invoked oneself, the one or the other is enough."""

_INVOCATIONS: Final = "/homing.v1.InvocationService/"
_PAYLOADS: Final = "/homing.v1.PayloadService/"
_LOGS: Final = "/homing.v1.LogService/"
_DEAD_LETTERS: Final = "/homing.v1.DeadLetterService/"
_SIGNING_KEYS: Final = "/homing.v1.SigningKeyService/"
_FUNCTIONS: Final = "/homing.v1.FunctionService/"
_SECRETS: Final = "/homing.v1.SecretService/"
_KEYS: Final = "/homing.v1.KeyService/"

SCOPES: Final[Mapping[str, Scopes]] = {
    _INVOCATIONS + "Invoke": frozenset({SCOPE_INVOKE}),
    _INVOCATIONS + "InvokeStream": frozenset({SCOPE_INVOKE}),
    _INVOCATIONS + "InvokeAsync": frozenset({SCOPE_INVOKE}),
    _INVOCATIONS + "BatchInvokeAsync": frozenset({SCOPE_INVOKE}),
    _PAYLOADS + "WritePayload": frozenset({SCOPE_INVOKE}),
    _INVOCATIONS + "GetInvocation": OWN,
    _INVOCATIONS + "WaitInvocation": OWN,
    _PAYLOADS + "ReadPayload": OWN,
    _INVOCATIONS + "ListInvocations": frozenset({SCOPE_READ}),
    _INVOCATIONS + "CountInvocations": frozenset({SCOPE_READ}),
    _INVOCATIONS + "WatchResults": frozenset({SCOPE_READ}),
    _LOGS + "TailLogs": frozenset({SCOPE_READ}),
    _LOGS + "TailFunctionLogs": frozenset({SCOPE_READ}),
    _DEAD_LETTERS + "ListDeadLetters": frozenset({SCOPE_READ}),
    _INVOCATIONS + "StopInvocation": frozenset({SCOPE_OPERATE}),
    _INVOCATIONS + "BulkStop": frozenset({SCOPE_OPERATE}),
    _INVOCATIONS + "RerunInvocation": frozenset({SCOPE_OPERATE}),
    _INVOCATIONS + "BulkRerun": frozenset({SCOPE_OPERATE}),
    _DEAD_LETTERS + "RedriveDeadLetters": frozenset({SCOPE_OPERATE}),
    _DEAD_LETTERS + "PurgeDeadLetters": frozenset({SCOPE_OPERATE}),
    _FUNCTIONS + "GetFunction": frozenset({SCOPE_READ}),
    _FUNCTIONS + "ListFunctions": frozenset({SCOPE_READ}),
    _FUNCTIONS + "PauseFunction": frozenset({SCOPE_OPERATE}),
    _FUNCTIONS + "ResumeFunction": frozenset({SCOPE_OPERATE}),
    _FUNCTIONS + "ScaleFunction": frozenset({SCOPE_OPERATE}),
    _FUNCTIONS + "DeployFunction": frozenset({SCOPE_DEPLOY}),
    _FUNCTIONS + "DeleteFunction": frozenset({SCOPE_DEPLOY}),
    _SECRETS + "CreateSecret": frozenset({SCOPE_DEPLOY}),
    _SECRETS + "UpdateSecret": frozenset({SCOPE_DEPLOY}),
    _SECRETS + "ListSecrets": frozenset({SCOPE_DEPLOY}),
    _SECRETS + "DeleteSecret": frozenset({SCOPE_DEPLOY}),
    _SIGNING_KEYS + "RotateSigningKey": frozenset({SCOPE_DEPLOY}),
    _SIGNING_KEYS + "ListSigningKeys": frozenset({SCOPE_DEPLOY}),
    _SIGNING_KEYS + "RevokeSigningKey": frozenset({SCOPE_DEPLOY}),
    _KEYS + "CreateKey": frozenset({SCOPE_ADMIN}),
    _KEYS + "ListKeys": frozenset({SCOPE_ADMIN}),
    _KEYS + "RevokeKey": frozenset({SCOPE_ADMIN}),
}
"""By method, the scopes of which one is needed. A method of homing's that is not here is refused to everybody."""

PUBLIC_METHODS: Final = frozenset(
    {_INVOCATIONS + name for name in ("Invoke", "InvokeStream", "InvokeAsync", "BatchInvokeAsync")}
)
"""What may be called without a key, for functions that are public."""

BATCH_METHOD: Final = _INVOCATIONS + "BatchInvokeAsync"
"""What counts for as many calls as it has invocations."""


def scopes_of(method: str) -> Scopes:
    """Return the scopes of which a method needs one: none where nobody may call it."""
    return SCOPES.get(method, frozenset())


def shown_scope(scope: Scope.ValueType) -> str:
    """Return a scope as users write it."""
    return Scope.Name(scope).removeprefix("SCOPE_").lower()
