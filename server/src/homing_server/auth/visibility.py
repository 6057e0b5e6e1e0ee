"""Checks who may have to do with an invocation, or a stored body, that is named by its id: by where it comes from."""

from __future__ import annotations

from homing_server.auth.identity import Identity
from homing_server.errors import ApiError, blob_not_found, invocation_not_found
from homing_server.store.engine import Database
from homing_server.store.visibility import Origin, body_of, origin_of


class Visibility:
    """Looks up where things come from, where the identity of the caller makes it matter."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check_function_of(self, invocation_id: str, caller: Identity) -> None:
        """Check that the caller may have to do with the function of an invocation.

        :raises ApiError: NOT_FOUND; PERMISSION_DENIED.
        """
        if caller.functions:
            caller.check_function((await self._origin(invocation_id)).function)

    async def check_read(self, invocation_id: str, caller: Identity) -> None:
        """Check that the caller may read an invocation.

        :raises ApiError: NOT_FOUND; PERMISSION_DENIED.
        """
        if not caller.reads_all:
            _check_read(await self._origin(invocation_id), caller)

    async def check_read_blob(self, blob_id: str, caller: Identity) -> None:
        """Check that the caller has stored a body, or may read one of the invocations that refer to it.

        Who may not, and knows its id all the same, may not give it to a function either, which would tell it.

        :raises ApiError: NOT_FOUND, also where it is another's and no invocation refers to it; PERMISSION_DENIED;
            UNAUTHENTICATED.
        """
        body = await self._database.read(body_of, blob_id)
        if body is None:
            raise blob_not_found(blob_id)
        if (caller.known and caller.name == body.stored_by) or (caller.reads_all and body.used):
            return
        refused = blob_not_found(blob_id)
        for origin in body.origins:
            try:
                _check_read(origin, caller)
            except ApiError as error:
                refused = error
            else:
                return
        raise refused

    async def _origin(self, invocation_id: str) -> Origin:
        origin = await self._database.read(origin_of, invocation_id)
        if origin is None:
            raise invocation_not_found(invocation_id)
        return origin


def _check_read(origin: Origin, caller: Identity) -> None:
    caller.check_read(function=origin.function, caller=origin.caller, caused=origin.caused)
