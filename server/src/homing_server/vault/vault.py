"""Opens the vault: finds the key that secrets are kept encrypted with, makes it at the first start, and checks it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import structlog
from sqlalchemy import Connection

from homing_core.private import make_parents
from homing_core.sealing import SealError, Vault, key_of_text, new_key, text_of_key
from homing_server.store import meta
from homing_server.store.engine import Database
from homing_server.vault.keyring import encrypt_anew

_log = structlog.get_logger(__name__)

_CHECK = "secret_check"
"""The property of the store that only the right key decrypts."""
_WORD = b"homing"


class SecretKeyError(ValueError):
    """The key that secrets are encrypted with is not there, or is another one."""


async def open_vault(database: Database, *, given: str, path: Path, former: str = "") -> Vault:
    """Return the vault of a store.

    :param given: The key in base64, where it was given as a setting; else empty.
    :param path: The file that has it where it was not. It is made where the store has had no key so far.
    :param former: The key that the store may still be encrypted with, in base64: all is encrypted anew then.
    :raises SecretKeyError: It is not the key of this store, or there is none.
    """
    check = await database.read(meta.read_property, _CHECK)
    text = given or _read(path)
    if not text:
        if check is not None:
            raise SecretKeyError(
                "the secrets of this store are encrypted with a key that is not here: set HOMING_SECRET_KEY, or put"
                f" its file back, {path}"
            )
        text = _make(path)
    vault = _vault(text, "HOMING_SECRET_KEY" if given else str(path))
    if check is None:
        made = vault.encrypt(_WORD, _CHECK).hex()
        # Where another server was faster its word counts.
        check = await database.write(meta.get_or_set, _CHECK, made)
    if former and not _opens(vault, check):
        check = await database.write(_change_key, _vault(former, "HOMING_FORMER_SECRET_KEY"), vault)
    if not _opens(vault, check):
        source = "HOMING_SECRET_KEY" if given else f"the key in {path}"
        raise SecretKeyError(
            f"{source} is not the key that the secrets of this store are encrypted with; all servers of a store have"
            " the same one"
        )
    return vault


def _vault(text: str, source: str) -> Vault:
    try:
        return Vault(key_of_text(text))
    except ValueError as error:
        raise SecretKeyError(f"{source}: {error}") from None


def _opens(vault: Vault, check: str) -> bool:
    try:
        vault.decrypt(bytes.fromhex(check), _CHECK)
    except SealError:
        return False
    return True


def _change_key(connection: Connection, former: Vault, vault: Vault) -> str:
    """Encrypt all anew, unless another server has just done so, and return the word that the right key decrypts."""
    check = meta.read_property(connection, _CHECK) or ""
    if _opens(former, check):
        try:
            changed = encrypt_anew(connection, former, vault)
        except SealError as error:
            raise SecretKeyError(f"the store cannot be encrypted anew: {error}") from None
        check = vault.encrypt(_WORD, _CHECK).hex()
        meta.change(connection, _CHECK, check)
        _log.info("secret_key_changed", encrypted_anew=changed)
    return check


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SecretKeyError(f"{path} cannot be read: {error}") from None


def _make(path: Path) -> str:
    """Write a new key to a file, whole or not at all; return what the file has, which another server may have made."""
    make_parents(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "w", encoding="ascii") as stream:
            stream.write(text_of_key(new_key()) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
            _log.info("secret_key_created", path=str(path))
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return _read(path)
