"""Holds the vault, and seals for each worker what it alone can read: the secrets and signing keys of functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from homing_core.sealing import SealError, Vault, seal
from homing_core.wire.v1 import FunctionSecrets, Sealed
from homing_server.store import secrets as stored_secrets
from homing_server.store import signing_keys as stored_keys
from homing_server.store.engine import Database
from homing_server.store.functions import get_function
from homing_server.store.key_requests import KeyRequest
from homing_server.store.secrets import SealedSecrets
from homing_server.store.signing_keys import StoredKey

_log = structlog.get_logger(__name__)

_DIGEST_BYTES = 32


def encrypt_anew(connection: Connection, former: Vault, vault: Vault) -> int:
    """Decrypt all that one vault has encrypted in the store and encrypt it with another; return how much there is.

    :raises SealError: Something is of neither, or was changed.
    """

    def secret(name: str, value: bytes) -> bytes:
        return vault.encrypt(former.decrypt(value, _secret(name)), _secret(name))

    def signing_key(key: StoredKey) -> bytes:
        name = _signing(key.id, key.function)
        return vault.encrypt(former.decrypt(key.value, name), name)

    return stored_secrets.change_values(connection, secret) + stored_keys.change_values(connection, signing_key)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """What the store has for a function, encrypted."""

    secrets: SealedSecrets
    signing_keys: Sequence[StoredKey]
    signing_version: int


class Keyring:
    """Encrypts what the store keeps, decrypts what workers need, and encrypts it anew for the one that asks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._vault: Vault | None = None

    def open(self, vault: Vault) -> None:
        """Begin to use a vault."""
        self._vault = vault

    @property
    def vault(self) -> Vault:
        """The vault, once it is open."""
        assert self._vault is not None, "the vault is opened before anything is served"
        return self._vault

    def encrypt_secret(self, name: str, value: bytes) -> bytes:
        """Return the value of a secret as the store keeps it."""
        return self.vault.encrypt(value, _secret(name))

    def encrypt_signing_key(self, key_id: str, function: str, key: bytes) -> bytes:
        """Return a signing key as the store keeps it."""
        return self.vault.encrypt(key, _signing(key_id, function))

    def open_signing_key(self, key: StoredKey) -> bytes:
        """Return a signing key that the store keeps.

        :raises SealError: It was changed there.
        """
        return self.vault.decrypt(key.value, _signing(key.id, key.function))

    def request(self, method: str, *, caller: str, request_id: str, content: bytes) -> KeyRequest:
        """Return what the store keeps of a call under a request id, so that it is known when it is repeated."""
        who = (method.encode(), caller.encode(), request_id.encode())
        return KeyRequest(
            digest=self.vault.derive(_DIGEST_BYTES, b"request", *who),
            fingerprint=self.vault.derive(_DIGEST_BYTES, b"fingerprint", *who, content),
        )

    async def sealed(self, functions: Sequence[str], public: bytes) -> list[Sealed]:
        """Return what a worker has to know of each of these functions, encrypted so that it alone can read it.

        A function that is gone has no secrets, but signing keys: its deliveries may be under way.

        :param public: The public key of the worker.
        :raises ApiError: UNAVAILABLE.
        """
        answers = []
        for function in functions:
            kept = await self._database.read(_read, function)
            try:
                known = self._decrypt(kept)
                answers.append(Sealed(function=function, box=seal(public, known.SerializeToString(), function)))
            except SealError as error:
                _log.error("secrets_not_sealed", function=function, error=str(error))
        return answers

    def _decrypt(self, kept: _Kept) -> FunctionSecrets:
        secrets = {name: self.vault.decrypt(value, _secret(name)) for name, value in kept.secrets.values.items()}
        keys = [self.open_signing_key(key) for key in kept.signing_keys]
        return FunctionSecrets(
            secrets=secrets,
            secrets_version=kept.secrets.version,
            signing_keys=keys,
            signing_version=kept.signing_version,
        )


def _secret(name: str) -> str:
    """Return the name under which the value of a secret is encrypted."""
    return f"secret {name}"


def _signing(key_id: str, function: str) -> str:
    """Return the name under which a signing key is encrypted."""
    return f"signing key {key_id} of {function}"


def _read(connection: Connection, name: str) -> _Kept:
    row = get_function(connection, name)
    secrets = SealedSecrets(values={}, version=0)
    if row is not None and not row.deleted:
        secrets = stored_secrets.secrets_of(connection, row.function)
    keys, version = stored_keys.keys_that_sign(connection, name)
    return _Kept(secrets=secrets, signing_keys=keys, signing_version=version)
