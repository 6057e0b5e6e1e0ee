"""A connection to RabbitMQ that is made again whenever it is lost."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import structlog
from pika import SSLOptions, URLParameters
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.connection import Parameters
from pika.exceptions import AMQPConnectionError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from homing_core.broker.rabbitmq.topology import TopologyError
from homing_core.broker.seam import BrokerUnavailableError, ForeignBrokerError

HEARTBEAT: Final = 15
"""Seconds of AMQP's heartbeat. A connection on which nothing was heard for this long, plus 5, is given up."""

CONNECT_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 2.0
MIN_BACKOFF: Final = 0.05
FIRST_BACKOFF: Final = 0.2
MAX_BACKOFF: Final = 5.0
"""Seconds, all of these."""

log = structlog.stdlib.get_logger(__name__)


def read_url(url: str, *, name: str, tls: ssl.SSLContext | None = None) -> Parameters:
    """Turn an AMQP URL into connection parameters; ``name`` is what the broker shows for the connection.

    :param tls: How the broker is checked, where the URL begins with amqps://; None for the certificates of the system.
    :raises ValueError: The URL cannot be read. The message does not repeat it, because of the password in it.
    """
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError  # noqa: TRY301
        parameters = URLParameters(url)
    except (ValueError, TypeError, LookupError):
        raise ValueError("The URL of the broker is not of the form amqp[s]://user:password@host:port/vhost.") from None
    if tls is not None:
        # The certificate has to be that of the host in the URL.
        parameters.ssl_options = SSLOptions(tls, parameters.host)
    parameters.heartbeat = HEARTBEAT
    # A name may have two addresses; the second is to have its chance. The deadline of the whole is the link's.
    parameters.socket_timeout = CONNECT_TIMEOUT / 2
    parameters.stack_timeout = None
    # One attempt each time: the pauses between them are the link's.
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": name}
    return parameters


class Connection(AsyncioConnection):
    """A connection that says when it is gone and can be dropped without the broker's consent."""

    lost: asyncio.Future[BaseException]
    """Done, with the cause as its result, once the connection is gone."""

    @classmethod
    async def open(cls, parameters: Parameters) -> Self:
        """Connect within :data:`CONNECT_TIMEOUT`.

        :raises BrokerUnavailableError: The broker could not be reached, or refused.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        lost: asyncio.Future[BaseException] = loop.create_future()

        def on_open(_: AsyncioConnection) -> None:
            if not opened.done():
                opened.set_result(None)

        def on_end(_: AsyncioConnection, cause: BaseException) -> None:
            lost.set_result(cause)
            if not opened.done():
                opened.set_exception(BrokerUnavailableError(f"RabbitMQ cannot be reached: {_root(cause)!r}"))

        connection = cls(parameters, on_open, on_end, on_end, loop)
        connection.lost = lost
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await opened
        except BaseException as error:
            connection.abort()
            await lost
            if isinstance(error, TimeoutError):
                raise BrokerUnavailableError(f"RabbitMQ did not answer within {CONNECT_TIMEOUT:g} s.") from None
            raise
        return connection

    def abort(self) -> None:
        """Drop the connection without the closing handshake: the broker may not be listening."""
        if not self.is_closed:
            self._terminate_stream(AMQPConnectionError("given up"))  # type: ignore[attr-defined]

    async def shut(self) -> None:
        """Close the connection; drop it where the broker does not agree within :data:`CLOSE_TIMEOUT`."""
        if self.is_open:
            self.close()
        await asyncio.wait({self.lost}, timeout=CLOSE_TIMEOUT)
        self.abort()
        await self.lost


class Link:
    """Keeps one connection: makes it, has it set up, and makes it anew when it is lost or its set-up fails."""

    def __init__(
        self,
        parameters: Parameters,
        *,
        purpose: str,
        set_up: Callable[[Connection], Awaitable[None]],
        lost: Callable[[], None],
    ) -> None:
        self._parameters = parameters
        self._set_up = set_up
        self._lost = lost
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._is_up = False
        self._log = log.bind(purpose=purpose, host=parameters.host, port=parameters.port, vhost=parameters.virtual_host)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that has been set up."""
        return self._is_up

    @property
    def connection(self) -> Connection:
        """The connection, perhaps still being set up.

        :raises BrokerUnavailableError: There is none.
        """
        if self._connection is None or not self._connection.is_open:
            raise BrokerUnavailableError("There is no connection to RabbitMQ.")
        return self._connection

    async def start(self) -> None:
        """Begin to connect; return once the first connection is set up.

        :raises TopologyError: The broker has other queues than homing needs; waiting would not help.
        :raises ForeignBrokerError: It belongs to another store; likewise.
        :raises BrokerUnavailableError: The link was closed meanwhile.
        """
        first = self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep())
        try:
            await asyncio.wait({first, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._first = None
        if not first.done():
            raise BrokerUnavailableError("The broker was closed before it was connected.")
        first.result()

    async def close(self) -> None:
        """Disconnect and stay so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep(self) -> None:
        while True:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Exception),
                wait=wait_random_exponential(multiplier=FIRST_BACKOFF, max=MAX_BACKOFF, min=MIN_BACKOFF),
                before_sleep=self._on_connect_failed,
            ):
                with attempt:
                    await self._live()
            # A connection that was up and was lost is made again soon, but not by all processes at once.
            await asyncio.sleep(random.uniform(0, FIRST_BACKOFF))  # noqa: S311

    async def _live(self) -> None:
        """Live through one connection; raise where it was never set up."""
        connection = self._connection = await Connection.open(self._parameters)
        try:
            await self._until_set_up(connection)
            self._is_up = True
            self._log.info("broker_connected")
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
            cause = await asyncio.shield(connection.lost)
            self._log.warning("broker_connection_lost", cause=repr(cause))
        finally:
            self._is_up = False
            self._connection = None
            if not connection.lost.done():
                await connection.shut()
            self._lost()

    async def _until_set_up(self, connection: Connection) -> None:
        set_up = asyncio.ensure_future(self._set_up(connection))
        try:
            either: set[asyncio.Future[Any]] = {set_up, connection.lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not set_up.done():
                set_up.cancel()
                await asyncio.wait({set_up})
        if set_up.cancelled():
            raise BrokerUnavailableError(f"RabbitMQ was lost while it was set up: {connection.lost.result()!r}")
        set_up.result()

    def _on_connect_failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, TopologyError | ForeignBrokerError) and self._first is not None and not self._first.done():
            self._first.set_exception(error)
        self._log.warning(
            "broker_connect_failed",
            error=str(error),
            attempt=state.attempt_number,
            next_in_s=round(state.upcoming_sleep, 1),
            exc_info=None if isinstance(error, BrokerUnavailableError | TopologyError | ForeignBrokerError) else error,
        )


def _root(error: BaseException) -> BaseException:
    """Unpack what pika wraps around the error that says something."""
    while True:
        inner = getattr(error, "exceptions", (getattr(error, "exception", None), *error.args))
        causes = [each for each in inner if isinstance(each, BaseException)]
        if not causes:
            return error
        error = causes[-1]
