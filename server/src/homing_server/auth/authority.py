"""What may be done in somebody's name while they show no key: what they asked for earlier is checked once it is done.

An outcome may invoke a function long after its caller asked for that. Meanwhile the key may have ended, and another one
of the same name, which goes on where it was, may allow less.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from homing.v1.function_pb2 import Function
from homing.v1.key_service_pb2 import SCOPE_INVOKE, SCOPE_OPERATE
from homing_server.auth.identity import ANONYMOUS, ROOT, Identity, KeyState, identity_of
from homing_server.auth.scopes import ALL_SCOPES, shown_scope
from homing_server.errors import key_revoked, scope_missing
from homing_server.store.api_keys import key_named

_ASKS: Final = frozenset({SCOPE_INVOKE, SCOPE_OPERATE})
"""The scopes by which invocations are asked for: anew, or again."""


class Authority:
    """Checks what callers may do by their names, as the store has their keys at that moment."""

    def __init__(self, *, authentication: bool, has_root: bool) -> None:
        """Prepare to check.

        :param authentication: Whether callers need keys; else everybody may do everything.
        :param has_root: Whether there is a root key.
        """
        self._authentication = authentication
        self._has_root = has_root

    def check_passing_on(self, connection: Connection, caller: str, function: Function) -> None:
        """Check that a function may be invoked with the outcome of what a caller had asked for, as they wished.

        :raises ApiError: UNAUTHENTICATED: no key of this name is in force; PERMISSION_DENIED: it does not allow that.
        """
        if not self._authentication:
            return
        identity = self._identity(connection, caller)
        identity.check_in_force()
        if not identity.scopes & _ASKS:
            raise scope_missing("invoking", [shown_scope(scope) for scope in sorted(_ASKS)])
        identity.check_destination(function)

    def _identity(self, connection: Connection, caller: str) -> Identity:
        if not caller:
            return ANONYMOUS  # it was accepted before keys were needed
        if caller == ROOT and self._has_root:
            return Identity(name=ROOT, scopes=ALL_SCOPES)
        key = key_named(connection, caller)
        if key is None:
            raise key_revoked()
        return identity_of(key, KeyState())
