"""What a fake server answers about dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from homing.testing._refusal import no_condition, served, served_stream
from homing.v1 import DeadLetter, DeadLetterFilter, dead_letter_service_pb2_grpc
from homing.v1 import dead_letter_service_pb2 as api

if TYPE_CHECKING:
    from homing.testing._state import State


class DeadLetters(dead_letter_service_pb2_grpc.DeadLetterServiceServicer):
    """homing.v1.DeadLetterService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._store = state.store

    @served
    def ListDeadLetters(  # noqa: N802
        self, request: api.ListDeadLettersRequest, _context: grpc.ServicerContext
    ) -> api.ListDeadLettersResponse:
        found = self._store.find_dead(request.filter)
        if after := request.page_token:
            found = [letter for letter in found if _place(letter) < after]
        page = found[: min(request.page_size or 50, 1000)]
        more = len(found) > len(page)
        return api.ListDeadLettersResponse(dead_letters=page, next_page_token=_place(page[-1]) if more else "")

    @served_stream
    def RedriveDeadLetters(  # noqa: N802
        self, request: api.RedriveDeadLettersRequest, _context: grpc.ServicerContext
    ) -> Iterator[api.RedriveDeadLettersResponse]:
        return self.state.bulk(request, lambda: self._redrive(request))

    @served_stream
    def PurgeDeadLetters(  # noqa: N802
        self, request: api.PurgeDeadLettersRequest, _context: grpc.ServicerContext
    ) -> Iterator[api.PurgeDeadLettersResponse]:
        return self.state.bulk(request, lambda: self._purge(request))

    def _redrive(self, request: api.RedriveDeadLettersRequest) -> api.RedriveDeadLettersResponse:
        matched = self._chosen_dead(request.filter)
        response = api.RedriveDeadLettersResponse(matched=len(matched))
        for letter in () if request.dry_run else matched:
            if letter.function not in self.state.deployed:
                response.refused += 1
            elif self._store.forget_dead_letter(letter.id):
                self.state.rerun(self._store.get(letter.id))
                response.rerun += 1
        return response

    def _purge(self, request: api.PurgeDeadLettersRequest) -> api.PurgeDeadLettersResponse:
        matched = self._chosen_dead(request.filter)
        purged = 0 if request.dry_run else sum(self._store.forget_dead_letter(letter.id) for letter in matched)
        return api.PurgeDeadLettersResponse(matched=len(matched), purged=purged)

    def _chosen_dead(self, wanted: DeadLetterFilter) -> list[DeadLetter]:
        """Return the dead letters that a filter selects that must not be empty.

        :raises Refusal: It is empty.
        """
        if wanted == DeadLetterFilter():
            raise no_condition()
        return self._store.find_dead(wanted)


def _place(letter: DeadLetter) -> str:
    """Return where a dead letter stands in the list of all, as a text that sorts likewise."""
    return f"{letter.time.ToNanoseconds():020d} {letter.id}"
