"""The asynchronous client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from homing._aio.bodies import AsyncBodies
from homing._aio.by_filter import AsyncByFilter
from homing._aio.by_id import AsyncById
from homing._aio.connection import AsyncConnection
from homing._aio.dead_letters import AsyncDeadLetters
from homing._aio.functions import AsyncFunctions
from homing._aio.invoking import AsyncInvoking
from homing._aio.keys import AsyncKeys
from homing._aio.secrets import AsyncSecrets
from homing._aio.signing_keys import AsyncSigningKeys
from homing._core.interceptors import AsyncInterceptor, checked
from homing._core.settings import DEFAULT_TIMEOUT, ConnectionSettings
from homing._core.spec import Seconds


class AsyncClient(AsyncInvoking, AsyncById, AsyncByFilter, AsyncBodies):
    """A connection to a homing server for asyncio. It belongs to the event loop of its first use.

    ::

        async with AsyncClient("localhost:50051") as client:
            print((await client.invoke("figlet", "hello")).text)
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        timeout: Seconds | None = DEFAULT_TIMEOUT,
        use_proxy: bool | None = None,
        interceptors: Sequence[AsyncInterceptor] = (),
    ) -> None:
        """Make a client; it connects with its first call.

        :param target: ``HOST:PORT`` of the server, or ``https://HOST:PORT`` for TLS; by default HOMING_TARGET, or else
            ``localhost:50051``.
        :param api_key: The key to show to the server; by default HOMING_API_KEY, or else none.
        :param tls_ca: A PEM file with the certificates to trust; by default HOMING_TLS_CA, or else those of the system.
            With one TLS is used.
        :param tls_cert: A PEM file with the certificate to show to a server that wants one; by default HOMING_TLS_CERT.
            With one TLS is used.
        :param tls_key: A PEM file with the key of that certificate; by default HOMING_TLS_KEY.
        :param timeout: The longest that a call may take where it does not say itself, in seconds or as a timedelta;
            calls that are retried because the server is unavailable are retried within it. None means for ever.
        :param use_proxy: Whether calls go through the proxy that the environment names, in grpc_proxy, https_proxy or
            http_proxy, to hosts that no_proxy does not name; by default HOMING_USE_PROXY, or else not.
        :param interceptors: Callables that every call passes on its way out, the first one first; see
            ``AsyncInterceptor``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        self._connection = AsyncConnection(
            ConnectionSettings.read(
                target=target,
                api_key=api_key,
                tls_ca=tls_ca,
                tls_cert=tls_cert,
                tls_key=tls_key,
                timeout=timeout,
                use_proxy=use_proxy,
                environment=os.environ,
            ),
            checked(interceptors),
        )
        self._functions = AsyncFunctions(self._connection)
        self._keys = AsyncKeys(self._connection)
        self._dead_letters = AsyncDeadLetters(self._connection)
        self._secrets = AsyncSecrets(self._connection)
        self._signing_keys = AsyncSigningKeys(self._connection)

    def __repr__(self) -> str:
        return f"<Client {self._connection.settings.target}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Running calls end with ClosedClientError, watches and logs just end."""
        await self._connection.close()

    @property
    def functions(self) -> AsyncFunctions:
        """What deploys, shows, holds, scales and removes functions."""
        return self._functions

    @property
    def keys(self) -> AsyncKeys:
        """What makes, lists and revokes API keys."""
        return self._keys

    @property
    def dead_letters(self) -> AsyncDeadLetters:
        """What lists, redrives and purges dead letters: invocations and deliveries that came to nothing."""
        return self._dead_letters

    @property
    def secrets(self) -> AsyncSecrets:
        """What makes, changes, lists and removes secrets."""
        return self._secrets

    @property
    def signing_keys(self) -> AsyncSigningKeys:
        """What rotates, lists and revokes the keys that deliveries are signed with."""
        return self._signing_keys
