"""Inserts of many rows, into the few tables to which every invocation brings some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Table, insert

_TOGETHER: Final = 16
"""So many rows go in one statement."""


class BulkInsert:
    """An INSERT whose rows go to the driver as they are, several in a statement.

    SQLAlchemy looks at each value of each row anew, which costs more than the database takes to insert it. So values
    must be such as drivers take by themselves: numbers, truth values, texts, bytes and None. And a driver lets other
    threads run at each statement, and then waits for its turn again.
    """

    def __init__(self, table: Table) -> None:
        """Prepare to insert into a table."""
        self._table = table
        self._values_of = itemgetter(*table.columns.keys())
        self._statements: dict[tuple[str, int], str] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows; each has all columns."""
        values = [*map(self._values_of, rows)]
        rest = len(rows) % _TOGETHER
        if rest:
            connection.exec_driver_sql(self._statement(connection.dialect, 1), values[:rest])
        if len(rows) > rest:
            groups = [
                tuple(chain.from_iterable(values[at : at + _TOGETHER])) for at in range(rest, len(rows), _TOGETHER)
            ]
            connection.exec_driver_sql(self._statement(connection.dialect, _TOGETHER), groups)

    def _statement(self, dialect: Dialect, rows: int) -> str:
        """Return the statement as a database takes it. Making it costs more than running it."""
        statement = self._statements.get((dialect.name, rows))
        if statement is None:
            some = [dict.fromkeys(self._table.columns.keys())] * rows
            statement = str(insert(self._table).values(some).compile(dialect=dialect))
            self._statements[dialect.name, rows] = statement
        return statement
