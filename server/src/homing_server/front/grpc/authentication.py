"""The interceptor that authenticates callers, before a request is read, and checks the scope that the method needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc

from homing_server.auth.identity import EVERYBODY
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError
from homing_server.front.api.access import admit, admit_any
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
                identity = EVERYBODY if self._keys is None else self._keys.identify(_shown(handler_call_details))
                (admit if method.startswith(_OURS) else admit_any)(identity, method)
            except ApiError as error:
                return refusing(error, method, self._refusals)
        return await continuation(handler_call_details)


def _shown(details: grpc.HandlerCallDetails) -> str | bytes | None:
    """Return what a caller shows as their key."""
    metadata: Iterable[tuple[str, str | bytes]] = details.invocation_metadata or ()
    return next((value for name, value in metadata if name == "authorization"), None)
