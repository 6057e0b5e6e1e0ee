"""The interceptor that authenticates callers, before a request is read, and checks the scope that the method needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc

from homing_server.auth import audit
from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.refusals import Refusals
from homing_server.auth.scopes import BATCH_METHOD, PUBLIC_METHODS
from homing_server.errors import ApiError, key_missing
from homing_server.front.grpc.caller import serve_for
from homing_server.front.grpc.status import refusing

_OPEN: Final = "/grpc.health.v1.Health/"
_OURS: Final = "/homing."


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Lets nobody in without a key, and nobody further than their scopes; services ask who it was."""

    def __init__(self, keys: KeyCache | None, refusals: Refusals) -> None:
        """Prepare to let callers in.

        :param keys: Who knows callers; None on a server without authentication, which lets everybody in.
        :param refusals: Tells of those who are not let in.
        """
        self._keys = keys
        self._refusals = refusals

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Answer the call here where it is refused."""
        method = handler_call_details.method
        if not method.startswith(_OPEN):
            try:
                self._admit(method, handler_call_details.invocation_metadata)
            except ApiError as error:
                return refusing(error, method, self._refusals)
        return await continuation(handler_call_details)

    def _admit(self, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> None:
        identity = EVERYBODY if self._keys is None else self._known(self._keys, method, metadata)
        if method.startswith(_OURS):
            try:
                identity.check_call(method)
            except ApiError as error:
                if audit.is_control(method):
                    audit.log_action(method, caller=identity.name, request=None, outcome=error.code.name)
                raise
        serve_for(identity)

    @staticmethod
    def _known(keys: KeyCache, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> Identity:
        shown = next((value for name, value in metadata or () if name == "authorization"), None)
        identity = keys.identify(shown)
        if not identity.known and method not in PUBLIC_METHODS:
            raise key_missing()
        if method != BATCH_METHOD:
            identity.take()
        return identity
