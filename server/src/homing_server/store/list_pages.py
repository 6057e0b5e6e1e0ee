"""Lists records by filter, in the order of their acceptance, page by page.

A page goes on behind the last record of the one before, by its time and id; so pages neither repeat nor miss a record
while others arrive, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, SelectBase, bindparam, or_, select, union_all

from homing.v1 import invocation_pb2 as api
from homing_server.store import schema
from homing_server.store.filter_sql import (
    IndexedPart,
    Span,
    TimeIndex,
    conditions,
    indexed_parts,
    labelled,
    span_of,
    time_index,
    unindexed,
)
from homing_server.store.invocation_rows import invocation_of
from homing_server.store.read import deliveries_of, size_of, take_page

_invocations = schema.invocations
_payloads = schema.payloads

_Bodies = tuple[bytes | None, bytes | None]
"""Those of a request and of a result; None for what is not there, or not wanted."""
_NO_BODIES: list[_Bodies] = [(None, None)]


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
    max_bytes: int,
    include_payload: bool,
    include_result: bool,
    where: Sequence[ColumnElement[bool]] = (),
) -> Page:
    """Return a page of the records that a filter selects.

    :param after: The last record of the page before.
    :param size: How many at the most.
    :param max_bytes: How many bytes they may take, about; one is returned, where there is one, however large it is.
    :param where: What must be true of them besides.
    """
    after_us = after.create_us if after is not None else 0
    index = time_index(connection, selection, oldest_first=oldest_first, after_us=after_us)
    query = page_query(selection, oldest_first=oldest_first, after=after, size=size, where=where, index=index)
    rows, more = take_page(connection.execute(query), size=size, max_bytes=max_bytes)
    bodies = _NO_BODIES * len(rows)
    if include_payload or include_result:
        bodies = list(_bodies_of(connection, rows, max_bytes, request=include_payload, result=include_result))
        rows, more = rows[: len(bodies)], more or len(bodies) < len(rows)
    deliveries = deliveries_of(connection, [row.id for row in rows])
    return Page(
        invocations=[
            invocation_of(row, request=request, result=result, deliveries=deliveries[row.id])
            for row, (request, result) in zip(rows, bodies, strict=True)
        ],
        next=Place(create_us=rows[-1].create_us, id=rows[-1].id) if more else None,
    )


def _bodies_of(
    connection: Connection, rows: Sequence[Row[Any]], max_bytes: int, *, request: bool, result: bool
) -> Iterator[_Bodies]:
    """Yield what is wanted of the bodies of records, until those and the records take so many bytes, about.

    They are read one by one, since the database may have to sort the records, and would sort the bodies with them.
    """
    columns = [column for column, wanted in ((_payloads.c.request, request), (_payloads.c.result, result)) if wanted]
    query = select(*columns).where(_payloads.c.invocation_id == bindparam("id"))
    room = max_bytes
    for number, row in enumerate(rows):
        found = connection.execute(query, {"id": row.id}).one()
        room -= size_of(row) + sum(len(body) for body in found if body is not None)
        if number and room < 0:
            return
        yield found.request if request else None, found.result if result else None


def page_query(
    selection: api.InvocationFilter,
    *,
    oldest_first: bool,
    after: Place | None,
    size: int,
    where: Sequence[ColumnElement[bool]] = (),
    index: TimeIndex | None = None,
) -> Select[Any]:
    """Return the query of a page, with one row more than the page has where there is a next one.

    :param where: What must be true besides.
    :param index: The index by a time that the filter has a range of, where few records are in that.
    """
    span = span_of(selection)
    if after is not None:
        span &= Span(first=after.create_us) if oldest_first else Span(end=after.create_us + 1)

    def ordered(query: Select[Any], create_us: ColumnElement[int], id_: ColumnElement[str]) -> Select[Any]:
        order = (create_us, id_) if oldest_first else (create_us.desc(), id_.desc())
        return query.order_by(*order).limit(size + 1)

    def beyond(create_us: ColumnElement[int], id_: ColumnElement[str]) -> list[ColumnElement[bool]]:
        at_once = [] if after is None else [_beyond(create_us, id_, after, oldest_first=oldest_first)]
        return [*span.of(create_us), *at_once]

    def pages_of(selected: SelectBase) -> Select[Any]:
        places = selected.subquery()
        page = ordered(select(places), places.c.create_us, places.c.id).subquery()
        return ordered(select(_invocations).join(page, page.c.id == _invocations.c.id), page.c.create_us, page.c.id)

    create_us: ColumnElement[int] = _invocations.c.create_us
    id_: ColumnElement[str] = _invocations.c.id
    parts = indexed_parts(selection)
    if index is not None:
        # Few are in the range: these are sorted.
        create_us, id_ = unindexed(create_us), unindexed(id_)
        few = select(create_us.label("create_us"), id_.label("id")).where(
            *index.of(selection),
            *conditions(selection, IndexedPart(), column=unindexed),
            *where,
            *beyond(create_us, id_),
        )
        return pages_of(few)
    if len(parts) == 1:
        query = select(_invocations).where(*conditions(selection, parts[0]), *where)
        query, label = labelled(query, selection)
        if label is not None:
            # The index of labels has the order too: what carries a rare label is found without looking at the rest.
            create_us, id_ = label.c.create_us, label.c.invocation_id
        return ordered(query.where(*beyond(create_us, id_)), create_us, id_)
    # Each part is in order by an index; the database merges them and stops when the page is full.
    return pages_of(
        union_all(
            *(
                select(create_us, id_).where(*conditions(selection, part), *where, *beyond(create_us, id_))
                for part in parts
            )
        )
    )


def _beyond(
    create_us: ColumnElement[int], id_: ColumnElement[str], place: Place, *, oldest_first: bool
) -> ColumnElement[bool]:
    """Return what is true behind a place, of the times from that of the place on."""
    if oldest_first:
        return or_(create_us > place.create_us, id_ > place.id)
    return or_(create_us < place.create_us, id_ < place.id)
