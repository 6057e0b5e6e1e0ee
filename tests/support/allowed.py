"""Who may call what, as the documentation promises it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from homing import Scope

INVOKE, READ, OPERATE, DEPLOY, ADMIN = Scope.INVOKE, Scope.READ, Scope.OPERATE, Scope.DEPLOY, Scope.ADMIN
SCOPES: Final = (INVOKE, READ, OPERATE, DEPLOY, ADMIN)

ALLOWED: Final[Mapping[str, AbstractSet[Scope]]] = {
    "InvocationService/Invoke": {INVOKE},
    "InvocationService/InvokeStream": {INVOKE},
    "InvocationService/InvokeAsync": {INVOKE},
    "InvocationService/BatchInvokeAsync": {INVOKE},
    "PayloadService/WritePayload": {INVOKE},
    "PayloadService/ReadPayload": {INVOKE, READ},
    "InvocationService/GetInvocation": {INVOKE, READ},
    "InvocationService/WaitInvocation": {INVOKE, READ},
    "InvocationService/ListInvocations": {READ},
    "InvocationService/CountInvocations": {READ},
    "InvocationService/WatchResults": {READ},
    "LogService/TailLogs": {READ},
    "LogService/TailFunctionLogs": {READ},
    "DeadLetterService/ListDeadLetters": {READ},
    "InvocationService/StopInvocation": {OPERATE},
    "InvocationService/BulkStop": {OPERATE},
    "InvocationService/RerunInvocation": {OPERATE},
    "InvocationService/BulkRerun": {OPERATE},
    "DeadLetterService/RedriveDeadLetters": {OPERATE},
    "DeadLetterService/PurgeDeadLetters": {OPERATE},
    "FunctionService/GetFunction": {READ},
    "FunctionService/ListFunctions": {READ},
    "FunctionService/PauseFunction": {OPERATE},
    "FunctionService/ResumeFunction": {OPERATE},
    "FunctionService/ScaleFunction": {OPERATE},
    "FunctionService/DeployFunction": {DEPLOY},
    "FunctionService/DeleteFunction": {DEPLOY},
    "SecretService/CreateSecret": {DEPLOY},
    "SecretService/UpdateSecret": {DEPLOY},
    "SecretService/ListSecrets": {DEPLOY},
    "SecretService/DeleteSecret": {DEPLOY},
    "SigningKeyService/RotateSigningKey": {DEPLOY},
    "SigningKeyService/ListSigningKeys": {DEPLOY},
    "SigningKeyService/RevokeSigningKey": {DEPLOY},
    "KeyService/CreateKey": {ADMIN},
    "KeyService/ListKeys": {ADMIN},
    "KeyService/RevokeKey": {ADMIN},
}
"""Which scopes allow what. An rpc that is not here fails the tests."""
