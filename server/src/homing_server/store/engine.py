"""Opens the database, brings its schema up to date and hands out connections to read and to write."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from homing_core.private import make_private_file
from homing_server.errors import ApiError, Code, ErrorReason
from homing_server.store.meta import get_or_set

_SCHEME = "sqlite:///"
_BUSY_TIMEOUT_MS = 10_000
_READ_CONNECTIONS = 4
_RETRY_AFTER_SECONDS = 1.0

P = ParamSpec("P")
T = TypeVar("T")


class StoreUnavailableError(ApiError):
    """The database cannot be read or written now: its disk is full, or somebody else has it locked."""

    def __init__(self, message: str) -> None:
        """Say what could not be done."""
        super().__init__(
            code=Code.UNAVAILABLE,
            reason=ErrorReason.STORE_UNAVAILABLE,
            message=message,
            retry_after=_RETRY_AFTER_SECONDS,
        )


class NewerStoreError(RuntimeError):
    """The database was brought up to date by a later version of homing, and this one does not know its schema."""


class Database:
    """A database file with one connection that writes and a few that read.

    A transaction is a function of a connection. It runs as a whole in a thread of its own, since a hop between threads
    for each of its statements would cost more than the statements do. SQLite lets one transaction write at a time, so
    writers queue here, where waiting costs nothing.
    """

    def __init__(self, url: str) -> None:
        """Prepare to open a database.

        :param url: ``sqlite:///PATH``; all that follows is the path, whatever characters are in it.
        :raises ValueError: It is something else.
        """
        path = url.removeprefix(_SCHEME)
        if path in {url, ""}:
            raise ValueError("store_url must be sqlite:///PATH")
        self._path = Path(path)
        self._writer = self._engine(connections=1, begin="BEGIN IMMEDIATE")
        self._reader = self._engine(connections=_READ_CONNECTIONS, begin="BEGIN")
        self._write_thread = ThreadPoolExecutor(1, "store-writer")
        self._read_threads = ThreadPoolExecutor(_READ_CONNECTIONS, "store-reader")
        self.identity = ""
        """Tells this database from every other; resume tokens carry it."""
        self.data_key = b""
        """A secret that the servers of this database share: it signs the URLs of the data port."""

    async def open(self) -> None:
        """Make the file where there is none and bring its schema up to date.

        :raises NewerStoreError: A later version has used it.
        :raises StoreUnavailableError: It cannot be written.
        """
        await asyncio.to_thread(make_private_file, self._path)
        await asyncio.get_running_loop().run_in_executor(self._write_thread, self._migrate)
        self.identity = await self.write(get_or_set, "identity", uuid.uuid4().hex[:16])
        self.data_key = bytes.fromhex(await self.write(get_or_set, "data_key", secrets.token_hex(32)))

    async def close(self) -> None:
        """Let the transactions under way end, then close all connections."""
        await asyncio.to_thread(self._close)

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], /, *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a transaction that may write, and commit it durably. Where it raises nothing of it is kept.

        A caller that is cancelled meanwhile does not learn whether it was committed.

        :raises StoreUnavailableError: The database could not be written.
        """
        run = partial(self._run, self.writing, work, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._write_thread, run)

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], /, *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a transaction that reads one consistent state.

        :raises StoreUnavailableError: The database could not be read.
        """
        run = partial(self._run, self.reading, work, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._read_threads, run)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that may write, in this thread."""
        try:
            with self._writer.begin() as connection:
                yield connection
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.IntegrityError):
                raise
            raise StoreUnavailableError(f"the store could not be written: {error.orig}") from error
        except PoolTimeoutError as error:
            raise StoreUnavailableError("the store could not be written: it is too busy") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads, in this thread."""
        try:
            with self._reader.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise StoreUnavailableError(f"the store could not be read: {error.orig}") from error
        except PoolTimeoutError as error:
            raise StoreUnavailableError("the store could not be read: it is too busy") from error

    @staticmethod
    def _run(
        transaction: Callable[[], AbstractContextManager[Connection]],
        work: Callable[Concatenate[Connection, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        with transaction() as connection:
            return work(connection, *arguments, **options)

    def _migrate(self) -> None:
        # One transaction around all steps: on SQLite Alembic would commit each, and several servers that start
        # at once would take the same steps.
        with self.writing() as connection:
            _migrate(connection)

    def _close(self) -> None:
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        self._writer.dispose()
        self._reader.dispose()

    def _engine(self, *, connections: int, begin: str) -> Engine:
        engine = create_engine(
            # Made from its parts: in a URL some characters of a path would have a meaning.
            URL.create("sqlite", database=str(self._path)),
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=60,
            # A connection serves one thread at a time, though not always the same.
            connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: object) -> None:
            # SQLAlchemy begins transactions itself, below, instead of the driver.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA cache_size = -65536")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # A transaction that will write says so at once: turning a reading one into a writing one can fail.
            connection.exec_driver_sql(begin)

        return engine


def _migrate(connection: Connection) -> None:
    config = Config()
    # A percent sign would be read as the beginning of a reference.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    revision = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise NewerStoreError(
            f"the store has the schema {revision} of a later version of homing, this one knows {max(known)} at the"
            " most: run that version, or go back to a backup from before it"
        )
    command.upgrade(config, "head")
