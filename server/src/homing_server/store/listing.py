"""Lists records by filter, in the order of their acceptance, page by page.

A page goes on behind the last record of the one before, by its time and id; so pages neither repeat nor miss a record
while others arrive, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from homing.v1 import invocation_pb2 as api
from homing_server.store import schema
from homing_server.store.reading import deliveries_of
from homing_server.store.records import invocation_of

_invocations = schema.invocations
_AFTER_ALL = "\U0010ffff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A place in the order of acceptance."""

    create_us: int
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Some records, and where the next page goes on; None at the end."""

    invocations: list[api.Invocation]
    next: Place | None


def list_invocations(
    connection: Connection,
    selection: api.InvocationFilter,
    *,
    oldest_first: bool,
    after: Place | None,
    size: int,
    include_payload: bool,
    include_result: bool,
) -> Page:
    """Return a page of the records that a filter selects.

    :param after: The last record of the page before.
    :param size: How many at the most.
    """
    query = page_query(selection, oldest_first=oldest_first, after=after, size=size)
    if include_payload or include_result:
        query = query.add_columns(schema.payloads.c.request, schema.payloads.c.result).join(
            schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id
        )
    rows = connection.execute(query).all()
    more = len(rows) > size
    rows = rows[:size]
    deliveries = deliveries_of(connection, [row.id for row in rows])
    return Page(
        invocations=[
            invocation_of(
                row,
                request=row.request if include_payload else None,
                result=row.result if include_result else None,
                deliveries=deliveries[row.id],
            )
            for row in rows
        ],
        next=Place(create_us=rows[-1].create_us, id=rows[-1].id) if more else None,
    )


def page_query(
    selection: api.InvocationFilter, *, oldest_first: bool, after: Place | None, size: int
) -> Select[tuple[object, ...]]:
    """Return the query of a page, with one row more than the page has where there is a next one."""
    query = select(_invocations).where(*_conditions(selection))
    create_us, id_ = _invocations.c.create_us, _invocations.c.id
    for number, (key, value) in enumerate(sorted(selection.labels.items())):
        label = schema.labels.alias()
        query = query.join(label, label.c.invocation_id == _invocations.c.id)
        query = query.where(label.c.key == key, label.c.value == value)
        if number == 0:
            # The index of labels has the order too: what carries a rare label is found without looking at the rest.
            create_us, id_ = label.c.create_us, label.c.invocation_id
    if after is not None:
        query = query.where(_beyond(create_us, id_, after, oldest_first=oldest_first))
    order = (create_us, id_) if oldest_first else (create_us.desc(), id_.desc())
    return query.order_by(*order).limit(size + 1)


def _beyond(
    create_us: ColumnElement[int], id_: ColumnElement[str], place: Place, *, oldest_first: bool
) -> ColumnElement[bool]:
    if oldest_first:
        return and_(create_us >= place.create_us, or_(create_us > place.create_us, id_ > place.id))
    return and_(create_us <= place.create_us, or_(create_us < place.create_us, id_ < place.id))


def _conditions(selection: api.InvocationFilter) -> Iterator[ColumnElement[bool]]:
    if selection.functions:
        yield _invocations.c.function.in_(sorted(selection.functions))
    if selection.states:
        yield _invocations.c.state.in_(sorted(selection.states))
    for name in ("create_time", "start_time", "end_time"):
        if selection.HasField(name):
            yield from _within(_invocations.c[name.replace("_time", "_us")], getattr(selection, name))
    if selection.id_prefix:
        yield _invocations.c.id >= selection.id_prefix
        yield _invocations.c.id < selection.id_prefix + _AFTER_ALL
    if selection.rerun_of:
        yield _invocations.c.rerun_of == selection.rerun_of


def _within(column: ColumnElement[int], bounds: api.TimeRange) -> Iterator[ColumnElement[bool]]:
    yield column > 0
    if bounds.HasField("start_time"):
        yield column >= _ceiling_us(bounds.start_time)
    if bounds.HasField("end_time"):
        yield column < _ceiling_us(bounds.end_time)


def _ceiling_us(time: Timestamp) -> int:
    """Return the first microsecond that is not before a time, which may be finer."""
    return time.seconds * 1_000_000 + -(-time.nanos // 1000)
