"""Secrets, for the asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing._aio.connection import AsyncConnection
from homing._core import check
from homing._core.calls import Deadline
from homing._core.secret import Secret, secret, value_of
from homing.v1 import secret_service_pb2


class AsyncSecrets:
    """Makes, changes, lists and removes secrets; reached as ``client.secrets``. Their values are never shown."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(self, name: str, value: str | bytes) -> Secret:
        """Make a secret that functions may name, to see it as a file.

        :param name: Letters a to z, digits, hyphens, dots and underscores, at most 63 characters.
        :param value: Its value, 1 byte to 64 KiB; text goes as UTF-8.
        :returns: The secret, without its value.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises AlreadyExistsError: There is one of this name.
        :raises RequestError: The call failed. It is not retried: a second try would find the secret there.
        """
        response = await self._connection.call(
            self._connection.secrets.CreateSecret,
            secret_service_pb2.CreateSecretRequest(name=check.text("name", name), value=value_of(value)),
            deadline=self._deadline(),
        )
        return secret(response.secret)

    async def update(self, name: str, value: str | bytes) -> Secret:
        """Give a secret another value. Instances of functions that see it are replaced, busy ones after their calls.

        :param name: The name of the secret.
        :param value: Its value from now on, 1 byte to 64 KiB; text goes as UTF-8.
        :returns: The secret, without its value.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises NotFoundError: There is none of this name.
        :raises RequestError: The call failed.
        """
        response = await self._connection.call_idempotent(
            self._connection.secrets.UpdateSecret,
            secret_service_pb2.UpdateSecretRequest(name=check.text("name", name), value=value_of(value)),
            deadline=self._deadline(),
        )
        return secret(response.secret)

    async def list(self) -> AsyncIterator[Secret]:
        """Yield all secrets by name, without their values, fetched page by page.

        :raises RequestError: The call failed.
        """
        token = ""
        while True:
            response = await self._connection.call_idempotent(
                self._connection.secrets.ListSecrets,
                secret_service_pb2.ListSecretsRequest(page_token=token),
                deadline=self._deadline(),
            )
            for message in response.secrets:
                yield secret(message)
            token = response.next_page_token
            if not token:
                return

    async def delete(self, name: str) -> None:
        """Remove a secret.

        :raises NotFoundError: There is none of this name.
        :raises FailedPreconditionError: A function names it.
        :raises RequestError: The call failed. It is not retried: a second try would not find the secret.
        """
        await self._connection.call(
            self._connection.secrets.DeleteSecret,
            secret_service_pb2.DeleteSecretRequest(name=check.text("name", name)),
            deadline=self._deadline(),
        )

    def _deadline(self) -> Deadline:
        return Deadline.after(self._connection.settings.timeout)
