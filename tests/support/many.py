"""Fills a store with very many records at once, such as real work leaves, but without doing the work."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy.dialects import sqlite

from homing.v1 import invocation_pb2 as api
from homing.v1 import payload_pb2, policy_pb2
from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.destinations import receiver_of
from homing_core.ids import new_id
from homing_core.lifecycle import Custody, Record, Refusal, State, Step
from homing_server.store import schema
from homing_server.store.accept import label_rows, row_of_spec
from homing_server.store.invocation_rows import values_of
from support.reporter import Reporter

DAY = 24 * 3600 * 1_000_000
FUNCTIONS = tuple(f"f{number:02}" for number in range(20))
JOBS = 1000
TEAMS = 4
STATES = {
    State.SUCCEEDED: 0.9,
    State.FAILED: 0.06,
    State.TIMED_OUT: 0.02,
    State.STOPPED: 0.01,
    State.EXPIRED: 0.005,
    State.INVALID: 0.003,
    State.SCHEDULED: 0.002,
}
_CHUNK = 20_000

Row = dict[str, Any]


def fill(path: Path, count: int, *, days: float = 6.0) -> None:
    """Add so many records, spread over the last days, to a store that nobody has open.

    Their functions are :data:`FUNCTIONS`, which must be there, their states as in :data:`STATES`. Each has the label
    ``job`` with one of :data:`JOBS` values, one of five the label ``team`` with one of :data:`TEAMS`; one of a hundred
    is the re-run of another, one of twenty had a callback.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    # Indexes are made faster from what is there than row by row.
    indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL").fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    counters = dict(connection.execute("SELECT name, value FROM counters"))
    rows = _rows(count, counters, int(days * DAY))
    while chunk := list(islice(rows, _CHUNK)):
        for table in (schema.invocations, schema.payloads, schema.labels, schema.deliveries):
            statement = str(table.insert().compile(dialect=sqlite.dialect(paramstyle="named")))
            connection.executemany(statement, [values for row in chunk for values in row[table.name]])
    counters[schema.ACCEPTED] += count
    connection.executemany("UPDATE counters SET value = ? WHERE name = ?", [(v, name) for name, v in counters.items()])
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _rows(count: int, counters: dict[str, int], span_us: int) -> Iterator[dict[str, list[Row]]]:
    random = Random(7)
    samples = {state: _sample(state) for state in STATES}
    states = random.choices(list(STATES), list(STATES.values()), k=count)
    begin_us = now_us() - span_us
    ids: list[str] = []
    for number, state in enumerate(states):
        create_us = begin_us + span_us * number // count
        id_ = new_id(create_us)
        ids.append(id_)
        counters[schema.CHANGE_SEQ] += 1
        ended = state is not State.SCHEDULED
        counters[schema.RESULT_SEQ] += ended
        function = random.choice(FUNCTIONS)
        run_us = random.randint(10_000, 60_000_000)
        callback = number % 20 == 0
        labels = {"job": str(random.randrange(JOBS))}
        if number % 5 == 0:
            labels["team"] = str(random.randrange(TEAMS))
        row, request, result = samples[state]
        spec = api.InvocationSpec(function=function, labels=labels)
        if callback:
            spec.callback.url = "http://127.0.0.1:9/hook"
        row = row | row_of_spec(spec)
        row |= {
            "id": id_,
            "create_us": create_us,
            "start_by_us": create_us + DAY,
            "start_us": create_us + run_us // 2 if row["start_us"] else 0,
            "end_us": create_us + run_us if ended else 0,
            "request_id": f"request {number}" if number % 3 == 0 else None,
            "fingerprint": bytes(32) if number % 3 == 0 else None,
            "rerun_of": ids[number // 2] if number % 100 == 99 else None,
            "result_seq": counters[schema.RESULT_SEQ] if ended else None,
            "change_seq": counters[schema.CHANGE_SEQ],
        }
        yield {
            "invocations": [row],
            "payloads": [{"invocation_id": id_, "request": request, "result": result}],
            "labels": label_rows(id_, spec, create_us),
            "deliveries": [_delivery(id_, spec, create_us + run_us)] if callback and ended else [],
        }


def _sample(state: State) -> tuple[Row, bytes, bytes | None]:
    """Return the columns that a state has in all records, the payload and the result."""
    time_us = now_us()
    due_us = time_us + 29 * DAY if state is State.SCHEDULED else time_us
    record = lifecycle.invocation.accepted(time_us=time_us, due_us=due_us)
    if state is not State.SCHEDULED:
        record = _after(lifecycle.invocation.dispatched(record, time_us=time_us))
        worker = Reporter(1, time_us=time_us)
        started = state in {State.SUCCEEDED, State.FAILED, State.TIMED_OUT}
        for event in [*([worker.dequeued(), worker.running()] if started else []), worker.ended(state)]:
            record = _after(lifecycle.invocation.reported(record, event))
    row: Row = values_of(record) | {
        "function_revision": 1,
        "sync": False,
        "caller": "",
        "size": 1024,
        "traceparent": "",
        "caused_by": None,
        "depth": 0,
    }
    payload = payload_pb2.Payload(content_type="text/plain", data=bytes(256)).SerializeToString()
    return row, payload, None if record.result is None else record.result.SerializeToString()


def _after(step: Step[Record] | Refusal) -> Record:
    assert isinstance(step, Step)
    return step.after


def _delivery(invocation_id: str, spec: api.InvocationSpec, time_us: int) -> Row:
    return {
        "id": new_id(time_us),
        "invocation_id": invocation_id,
        "kind": api.DELIVERY_KIND_CALLBACK,
        "target": policy_pb2.Callback(url=spec.callback.url).SerializeToString(),
        "state": api.DELIVERY_STATE_DELIVERED,
        "generation": 1,
        "redelivery_count": 0,
        "custody": int(Custody.NONE),
        "receiver": receiver_of(spec.callback.url),
        "due_us": 0,
        "sent_us": 0,
        "create_us": time_us,
        "end_us": time_us + 1000,
        "history": b"",
    }
