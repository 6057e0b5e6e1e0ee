# Generated from _aio/keys.py by scripts/unasync.py; do not edit.
"""API keys, for the synchronous client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from homing._core import check
from homing._core.calls import Deadline
from homing._core.key import ApiKey, NewApiKey, api_key, create_request
from homing._core.names import Scope
from homing._sync.connection import Connection
from homing.errors import RequestError
from homing.v1 import key_service_pb2


class Keys:
    """Makes, lists and revokes API keys; reached as ``client.keys``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[Scope | str],
        functions: Sequence[str] | None = None,
        max_per_second: float | None = None,
        expires: datetime | timedelta | float | None = None,
        request_id: str | None = None,
    ) -> NewApiKey:
        """Make a key and return it, this one time.

        A request id always goes along, so the call is idempotent and is retried while the server is unavailable.

        :param name: What records show as the caller: letters a to z, digits, hyphens, dots and underscores, at most 63.
        :param scopes: What it allows, as ``["invoke", "read"]``.
        :param functions: The functions that it allows it for; by default all.
        :param max_per_second: How many calls and invocations in a second it allows, each server for itself; by default
            any number.
        :param expires: When it ends, or after how many seconds; by default it does not.
        :param request_id: For a day the same id with the same arguments is the same key; ``expires`` is a datetime
            then, since what counts from now is another time at each call. By default a new one.
        :returns: The key, with what is known of it.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises AlreadyExistsError: There is one of this name, or the request id was used with other arguments.
        :raises FailedPreconditionError: The key that the request id stands for was revoked.
        :raises RequestError: The call failed. Where the key may have been made, the error's ``request_id`` makes
            another try safe.
        """
        request = create_request(
            name,
            scopes=scopes,
            functions=functions,
            max_per_second=max_per_second,
            expires=expires,
            request_id=request_id,
        )
        try:
            response = self._connection.call_idempotent(
                self._connection.keys.CreateKey, request, deadline=self._deadline()
            )
        except RequestError as err:
            err.request_id = request.request_id
            raise
        return NewApiKey(api_key=api_key(response.key), secret=response.secret, duplicate=response.duplicate)

    def list(self) -> Iterator[ApiKey]:
        """Yield the keys in force by name, without the keys themselves, fetched page by page.

        :raises RequestError: The call failed.
        """
        token = ""
        while True:
            response = self._connection.call_idempotent(
                self._connection.keys.ListKeys,
                key_service_pb2.ListKeysRequest(page_token=token),
                deadline=self._deadline(),
            )
            for message in response.keys:
                yield api_key(message)
            token = response.next_page_token
            if not token:
                return

    def revoke(self, key: str) -> ApiKey:
        """End a key; all servers refuse it within seconds.

        :param key: Its name or its id.
        :returns: What was known of it.
        :raises NotFoundError: There is none in force.
        :raises RequestError: The call failed. It is not retried: a second try would not find the key.
        """
        response = self._connection.call(
            self._connection.keys.RevokeKey,
            key_service_pb2.RevokeKeyRequest(key=check.text("key", key)),
            deadline=self._deadline(),
        )
        return api_key(response.key)

    def _deadline(self) -> Deadline:
        return Deadline.after(self._connection.settings.timeout)
