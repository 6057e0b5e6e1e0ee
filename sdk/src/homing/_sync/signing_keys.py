# Generated from _aio/signing_keys.py by scripts/unasync.py; do not edit.
"""Signing keys, for the synchronous client."""

from __future__ import annotations

from collections.abc import Sequence

from homing._core import check
from homing._core.calls import Deadline
from homing._core.secret import NewSigningKey, SigningKey, rotate_request, signing_key
from homing._sync.connection import Connection
from homing.errors import RequestError
from homing.v1 import signing_key_service_pb2


class SigningKeys:
    """Rotates, lists and revokes the keys that deliveries are signed with; reached as ``client.signing_keys``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rotate(
        self, *, function: str | None = None, key: str | None = None, request_id: str | None = None
    ) -> NewSigningKey:
        """Make the key that deliveries are signed with from now on. The one before stays active beside it.

        A request id always goes along, so the call is idempotent and is retried while the server is unavailable.

        :param function: Whose deliveries it signs; by default those of all functions that have no key of their own.
        :param key: The key, ``whsec_`` and 24 to 64 bytes in base64; by default the server makes one.
        :param request_id: The same id with the same arguments is the same key, as long as it is kept. By default a new
            one.
        :returns: The key, which is shown this one time.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises NotFoundError: There is no such function.
        :raises AlreadyExistsError: The request id was used with other arguments.
        :raises RequestError: The call failed. Where the key may have been made, the error's ``request_id`` makes
            another try safe.
        """
        request = rotate_request(function, key, request_id)
        try:
            response = self._connection.call_idempotent(
                self._connection.signing_keys.RotateSigningKey, request, deadline=self._deadline()
            )
        except RequestError as err:
            err.request_id = request.request_id
            raise
        return NewSigningKey(
            signing_key=signing_key(response.signing_key), key=response.key, duplicate=response.duplicate
        )

    def list(self, *, function: str | None = None) -> Sequence[SigningKey]:
        """Return the signing keys by function, the newest of each first, without the keys themselves.

        :param function: Whose; by default those of all functions and of the server.
        :raises TypeError: An argument is of the wrong type.
        :raises RequestError: The call failed.
        """
        request = signing_key_service_pb2.ListSigningKeysRequest(
            function="" if function is None else check.text("function", function)
        )
        keys: list[SigningKey] = []
        while True:
            response = self._connection.call_idempotent(
                self._connection.signing_keys.ListSigningKeys, request, deadline=self._deadline()
            )
            keys.extend(map(signing_key, response.signing_keys))
            request.page_token = response.next_page_token
            if not request.page_token:
                return keys

    def revoke(self, key_id: str) -> None:
        """Remove a signing key: deliveries are not signed with it any more.

        :param key_id: Its id.
        :raises NotFoundError: There is none of this id.
        :raises FailedPreconditionError: It is the only one of the server.
        :raises RequestError: The call failed. It is not retried: a second try would not find the key.
        """
        self._connection.call(
            self._connection.signing_keys.RevokeSigningKey,
            signing_key_service_pb2.RevokeSigningKeyRequest(id=check.text("key_id", key_id)),
            deadline=self._deadline(),
        )

    def _deadline(self) -> Deadline:
        return Deadline.after(self._connection.settings.timeout)
