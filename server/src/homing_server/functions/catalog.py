"""The functions as this server knows them: a copy of the store's, kept fresh by control messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from homing.v1 import function_pb2
from homing.v1.function_service_pb2 import ListFunctionsRequest, ListFunctionsResponse
from homing_core.wire.v1 import FunctionState
from homing_server.auth.identity import Identity
from homing_server.errors import ApiError, Code, function_not_found
from homing_server.rules.paging import BY_NAME, Paging, name_after
from homing_server.rules.validation import Checks
from homing_server.store import functions as stored
from homing_server.store.engine import Database
from homing_server.store.functions import StoredFunction

_PAGING = Paging(kind="functions", place=BY_NAME)


class Catalog:
    """Functions by name, deleted ones with what they left."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._states: dict[str, FunctionState] = {}
        self._hooks: list[Callable[[str], None]] = []

    async def load(self) -> list[FunctionState]:
        """Read all functions; return what is left of deleted ones whose queues may be left too."""
        rows = await self._database.read(stored.all_functions)
        for row in rows:
            self.learn(state_of(row))
        return [state_of(row) for row in rows if row.deleted and not row.drained]

    def learn(self, state: FunctionState) -> None:
        """Take over a function as it is now, unless it is known as it was later."""
        known = self._states.get(state.function.name)
        if known is None or _age(state) >= _age(known):
            self._states[state.function.name] = state
            for hook in self._hooks:
                hook(state.function.name)

    async def get(self, name: str) -> function_pb2.Function:
        """Return a function.

        :raises ApiError: NOT_FOUND; UNAVAILABLE: the store could not be read.
        """
        state = self._states.get(name)
        if state is None or state.deleted:
            # Another server may have deployed it, and its word may still be on the way here.
            return await self.get_stored(name)
        return state.function

    async def get_stored(self, name: str) -> function_pb2.Function:
        """Return a function as the store has it.

        :raises ApiError: NOT_FOUND; UNAVAILABLE: the store could not be read.
        """
        row = await self._database.read(stored.get_function, name)
        if row is None or row.deleted:
            raise function_not_found(name)
        self.learn(state_of(row))
        return row.function

    async def check_invoke(self, name: str, identity: Identity) -> None:
        """Check that a function may be invoked: by who may have to do with it, and by everybody if it is public.

        :raises ApiError: As `check_public` does.
        """
        if not identity.covers(name):
            await self.check_public(name, identity)

    async def check_public(self, name: str, identity: Identity) -> None:
        """Check that a function may be invoked by whoever may not have to do with it otherwise.

        :raises ApiError: UNAUTHENTICATED or PERMISSION_DENIED, also where there is no such function: who may not know
            is not told; UNAVAILABLE: the store could not be read.
        """
        try:
            function = await self.get(name)
        except ApiError as error:
            if error.code is Code.NOT_FOUND:
                raise identity.refusal(name) from None
            raise
        if not function.public:
            raise identity.refusal(name)

    def list(self, request: ListFunctionsRequest, *, caller: Identity) -> ListFunctionsResponse:
        """Return a page of the functions that the caller may have to do with.

        :raises ApiError: INVALID_ARGUMENT.
        """
        checks = Checks()
        cursor = _PAGING.cursor(checks, request)
        checks.done()
        after = name_after(cursor)
        names = sorted(
            name for name, state in self._states.items() if name > after and not state.deleted and caller.covers(name)
        )
        page = cursor.page(
            [self._states[name].function for name in names[: cursor.size]],
            more=len(names) > cursor.size,
            place_of=lambda function: {"after": function.name},
        )
        return ListFunctionsResponse(functions=page.items, next_page_token=page.next_page_token)

    def live(self) -> Iterable[FunctionState]:
        """Return all functions that are not deleted."""
        return [state for state in self._states.values() if not state.deleted]

    def is_paused(self, name: str) -> bool:
        """Tell whether the work of this function is held."""
        state = self._states.get(name)
        return state is not None and state.function.paused

    def records_calls(self, name: str) -> bool:
        """Tell whether synchronous calls of this function leave records, as far as is known here."""
        state = self._states.get(name)
        return state is None or not state.function.HasField("record_sync") or state.function.record_sync

    def on_change(self, hook: Callable[[str], None]) -> None:
        """Call a hook with the name of each function that is learned to be new or changed."""
        self._hooks.append(hook)

    def is_deleted(self, name: str) -> bool:
        """Tell whether this name is a deleted function's."""
        state = self._states.get(name)
        return state is not None and state.deleted


def state_of(row: StoredFunction) -> FunctionState:
    """Return what is announced of a function."""
    return FunctionState(
        function=row.function,
        deleted=row.deleted,
        secrets_version=row.secrets_version,
        deleted_revision=row.deleted_revision,
    )


def _age(state: FunctionState) -> tuple[int, int]:
    return state.function.revision, state.secrets_version
