"""Accepts invocations, many in one transaction; deduplicates them by caller and request id."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing_core import limits
from homing_core.lifecycle import Record
from homing_core.wire.v1 import SyncRequest
from homing_server.store import schema
from homing_server.store.blobs import known_blobs, use_blobs
from homing_server.store.bulk_insert import BulkInsert
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Values, slim, values_of
from homing_server.store.sequences import raise_counters

_invocations = schema.invocations

# Making a statement costs more than running it: those that run often are made once.
_insert_invocations = BulkInsert(_invocations)
_insert_payloads = BulkInsert(schema.payloads)
_insert_labels = BulkInsert(schema.labels)
_select_requests = select(
    _invocations.c.caller, _invocations.c.request_id, _invocations.c.id, _invocations.c.fingerprint
).where(
    _invocations.c.caller.in_(bindparam("callers", expanding=True)),
    _invocations.c.request_id.in_(bindparam("request_ids", expanding=True)),
)
_select_functions = select(schema.functions.c.name, schema.functions.c.revision).where(
    schema.functions.c.name.in_(bindparam("names", expanding=True)), schema.functions.c.deleted.is_(False)
)


class Outcome(enum.Enum):
    """What became of a draft."""

    ACCEPTED = enum.auto()
    DUPLICATE = enum.auto()
    """An earlier call with the same request id and content was accepted."""
    CONFLICT = enum.auto()
    """An earlier call with the same request id had other content."""
    NO_FUNCTION = enum.auto()
    """Its function has been deleted."""
    NO_BLOB = enum.auto()
    """Its payload has been removed, since no invocation referred to it for long."""


@dataclass(kw_only=True, slots=True)
class Draft:
    """An invocation that is to be accepted."""

    id: str
    spec: api.InvocationSpec
    record: Record
    """As it is to be stored; the dispatcher changes it where it takes the invocation at once."""
    caller: str
    request_id: str
    fingerprint: bytes
    create_us: int
    start_by_us: int
    traceparent: str
    rerun_of: str = ""
    """The ended invocation that it runs again; empty for none."""
    caused_by: str = ""
    """The ended invocation whose outcome caused it; empty for none."""
    depth: int = 0
    """How many invocations in a row caused it."""

    @property
    def blob_id(self) -> str:
        """Return the id of the payload that is stored apart; empty where it is not."""
        return self.spec.payload.blob.id

    @property
    def size(self) -> int:
        """Return about how many bytes the invocation takes at the broker."""
        return len(self.spec.payload.data) + 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What became of a draft, and the id of the invocation that stands for it."""

    outcome: Outcome
    id: str
    function_revision: int = 0
    """The revision of its function, where it was accepted."""


def accept(connection: Connection, drafts: Sequence[Draft]) -> list[Verdict]:
    """Record those drafts that are new; tell what became of each, in order."""
    known = _known_requests(connection, drafts)
    functions = _live_functions(connection, {draft.spec.function for draft in drafts})
    blobs = _known_blobs(connection, drafts)
    verdicts: list[Verdict] = []
    fresh: list[Draft] = []
    for draft in drafts:
        earlier = known.get((draft.caller, draft.request_id)) if draft.request_id else None
        if earlier is not None:
            outcome = Outcome.DUPLICATE if earlier[1] == draft.fingerprint else Outcome.CONFLICT
            verdicts.append(Verdict(outcome=outcome, id=earlier[0]))
        elif draft.spec.function not in functions:
            verdicts.append(Verdict(outcome=Outcome.NO_FUNCTION, id=draft.id))
        elif draft.blob_id and draft.blob_id not in blobs:
            verdicts.append(Verdict(outcome=Outcome.NO_BLOB, id=draft.id))
        else:
            revision = functions[draft.spec.function]
            verdicts.append(Verdict(outcome=Outcome.ACCEPTED, id=draft.id, function_revision=revision))
            known[draft.caller, draft.request_id] = draft.id, draft.fingerprint
            fresh.append(draft)
    if fresh:
        insert_drafts(connection, fresh, functions)
    return verdicts


def _known_requests(connection: Connection, drafts: Sequence[Draft]) -> dict[tuple[str, str], tuple[str, bytes]]:
    wanted = {draft.request_id for draft in drafts if draft.request_id}
    if not wanted:
        return {}
    callers = {draft.caller for draft in drafts}
    return {
        (caller, request_id): (invocation_id, fingerprint)
        for caller, request_id, invocation_id, fingerprint in connection.execute(
            _select_requests, {"callers": list(callers), "request_ids": list(wanted)}
        )
    }


def _live_functions(connection: Connection, names: set[str]) -> dict[str, int]:
    """Return the functions of these names, and their revisions."""
    found = connection.execute(_select_functions, {"names": list(names)})
    return {name: revision for name, revision in found}  # noqa: C416 rows are no pairs


def _known_blobs(connection: Connection, drafts: Sequence[Draft]) -> set[str]:
    wanted = {draft.blob_id for draft in drafts if draft.blob_id}
    return known_blobs(connection, wanted) if wanted else set()


def insert_drafts(connection: Connection, drafts: Sequence[Draft], revisions: Mapping[str, int]) -> None:
    """Record drafts that are known to be new, and whose functions and bodies are there.

    :param revisions: Of their functions, by name.
    """
    counted = raise_counters(connection, {schema.CHANGE_SEQ: len(drafts), schema.ACCEPTED: len(drafts)})
    first = counted[schema.CHANGE_SEQ] - len(drafts) + 1
    rows = [
        row_of_spec(draft.spec)
        | values_of(draft.record)
        | {
            "id": draft.id,
            "function_revision": revisions[draft.spec.function],
            "sync": False,
            "caller": draft.caller,
            "request_id": draft.request_id or None,
            "fingerprint": draft.fingerprint if draft.request_id else None,
            "create_us": draft.create_us,
            "start_by_us": draft.start_by_us,
            "size": draft.size,
            "traceparent": draft.traceparent,
            "rerun_of": draft.rerun_of or None,
            "caused_by": draft.caused_by or None,
            "depth": draft.depth,
            "result_seq": None,
            "change_seq": change_seq,
        }
        for change_seq, draft in enumerate(drafts, first)
    ]
    _insert_invocations.run(connection, rows)
    payloads = [
        {"invocation_id": draft.id, "request": draft.spec.payload.SerializeToString(), "result": None}
        for draft in drafts
    ]
    _insert_payloads.run(connection, payloads)
    uses = [(draft.id, draft.blob_id) for draft in drafts if draft.blob_id]
    if uses:
        use_blobs(connection, uses, now_us=drafts[0].create_us)
    labels = [row for draft in drafts for row in label_rows(draft.id, draft.spec, draft.create_us)]
    if labels:
        _insert_labels.run(connection, labels)


def insert_calls(
    connection: Connection, calls: Mapping[str, tuple[SyncRequest, Record]], effects: CommitEffects
) -> None:
    """Record synchronous calls, by id, that are known to be new; number those that have ended."""
    if not calls:
        return
    ends = sum(1 for _, record in calls.values() if record.ended)
    steps = {schema.CHANGE_SEQ: len(calls), schema.RESULT_SEQ: ends, schema.ACCEPTED: len(calls)}
    counted = raise_counters(connection, steps)
    change_seq = counted[schema.CHANGE_SEQ] - len(calls)
    result_seq = counted[schema.RESULT_SEQ] - ends
    rows, payloads, labels = [], [], []
    for key, (request, record) in calls.items():
        change_seq += 1
        if record.ended:
            result_seq += 1
            effects.ended[key] = record.state
        rows.append(
            row_of_spec(request.spec)
            | values_of(record)
            | {
                "id": key,
                "function_revision": 0,
                "sync": True,
                "caller": request.caller,
                "request_id": None,
                "fingerprint": None,
                "create_us": request.create_us,
                "start_by_us": 0,
                "size": 0,
                "traceparent": request.traceparent,
                "rerun_of": None,
                "caused_by": None,
                "depth": 0,
                "change_seq": change_seq,
                "result_seq": result_seq if record.ended else None,
            }
        )
        payloads.append(
            {
                "invocation_id": key,
                "request": request.spec.payload.SerializeToString(),
                "result": None if record.result is None else record.result.SerializeToString(),
            }
        )
        labels.extend(label_rows(key, request.spec, request.create_us))
    _insert_invocations.run(connection, rows)
    _insert_payloads.run(connection, payloads)
    if labels:
        _insert_labels.run(connection, labels)
    effects.change_seq = change_seq
    if ends:
        effects.result_seq = result_seq


def max_age_us(spec: api.InvocationSpec, function: Function) -> int:
    """Return how long an invocation may wait for its start, in microseconds."""
    for asked in (spec, function):
        if asked.HasField("max_age"):
            return asked.max_age.ToMicroseconds()
    return int(limits.DEFAULT_MAX_AGE * 1e6)


def row_of_spec(spec: api.InvocationSpec) -> Values:
    """Return the columns that hold what was asked, the payload's body apart."""
    return {"function": spec.function, "call_id": spec.call_id or None, "spec": slim(spec).SerializeToString()}


def label_rows(invocation_id: str, spec: api.InvocationSpec, create_us: int) -> list[dict[str, Any]]:
    """Return the rows that make an invocation be found by its labels."""
    return [
        {"invocation_id": invocation_id, "key": key, "value": value, "create_us": create_us}
        for key, value in spec.labels.items()
    ]
