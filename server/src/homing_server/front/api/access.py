"""Lets calls in: with a key where one is needed, no more of them than the key allows, and none without its scope."""

from __future__ import annotations

from homing_server.auth import audit
from homing_server.auth.identity import Identity
from homing_server.auth.scopes import BATCH_METHOD, PUBLIC_METHODS
from homing_server.errors import ApiError, key_missing
from homing_server.front.api.caller import serve_for


def admit(identity: Identity, method: str) -> None:
    """Let a call in, count it, and note who makes it for the services that this task runs.

    :param method: As gRPC has it, `/SERVICE/METHOD`.
    :raises ApiError: UNAUTHENTICATED; RESOURCE_EXHAUSTED: the key makes too many calls; PERMISSION_DENIED;
        UNIMPLEMENTED: there is no such method.
    """
    admit_any(identity, method)
    try:
        identity.check_call(method)
    except ApiError as error:
        if audit.is_control(method):
            audit.log_action(method, caller=identity.name, request=None, outcome=error.code.name)
        raise


def admit_any(identity: Identity, method: str) -> None:
    """Let a call in as `admit` does, of a method that needs no scope.

    :raises ApiError: UNAUTHENTICATED; RESOURCE_EXHAUSTED.
    """
    if not identity.known and method not in PUBLIC_METHODS:
        raise key_missing()
    if method != BATCH_METHOD:
        identity.take()
    serve_for(identity)
