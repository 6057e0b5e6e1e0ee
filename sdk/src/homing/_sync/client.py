# Generated from _aio/client.py by scripts/unasync.py; do not edit.
"""The synchronous client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from homing._core.interceptors import Interceptor, checked
from homing._core.settings import DEFAULT_TIMEOUT, ConnectionSettings
from homing._core.spec import Seconds
from homing._sync.bodies import Bodies
from homing._sync.by_filter import ByFilter
from homing._sync.by_id import ById
from homing._sync.connection import Connection
from homing._sync.dead_letters import DeadLetters
from homing._sync.functions import Functions
from homing._sync.invoking import Invoking
from homing._sync.keys import Keys
from homing._sync.secrets import Secrets
from homing._sync.signing_keys import SigningKeys


class Client(Invoking, ById, ByFilter, Bodies):
    """A connection to a homing server. Safe to use from several threads, but not from a forked process.

    ::

        with Client("localhost:50051") as client:
            print(client.invoke("figlet", "hello").text)
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
        interceptors: Sequence[Interceptor] = (),
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
            ``Interceptor``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        self._connection = Connection(
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
        self._functions = Functions(self._connection)
        self._keys = Keys(self._connection)
        self._dead_letters = DeadLetters(self._connection)
        self._secrets = Secrets(self._connection)
        self._signing_keys = SigningKeys(self._connection)

    def __repr__(self) -> str:
        return f"<Client {self._connection.settings.target}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Running calls end with ClosedClientError, watches and logs just end."""
        self._connection.close()

    @property
    def functions(self) -> Functions:
        """What deploys, shows, holds, scales and removes functions."""
        return self._functions

    @property
    def keys(self) -> Keys:
        """What makes, lists and revokes API keys."""
        return self._keys

    @property
    def dead_letters(self) -> DeadLetters:
        """What lists, redrives and purges dead letters: invocations and deliveries that came to nothing."""
        return self._dead_letters

    @property
    def secrets(self) -> Secrets:
        """What makes, changes, lists and removes secrets."""
        return self._secrets

    @property
    def signing_keys(self) -> SigningKeys:
        """What rotates, lists and revokes the keys that deliveries are signed with."""
        return self._signing_keys
