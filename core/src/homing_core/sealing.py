"""Encryption of what nobody but its user is to read: in transit to a worker, and at rest in the store.

Both bind the ciphertext to a name, so that one which was put in another's place is refused and not taken for it.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_SIZE: Final = 32
"""The bytes of every key here."""

_NONCE: Final = 12
_SEAL: Final = b"homing seal v1"
_VAULT: Final = b"homing vault v1\0"
_DERIVED: Final = b"homing derived v1\0"
_VERSION: Final = b"\x01"


class SealError(Exception):
    """What was sealed cannot be opened: it was changed, is meant for somebody else, or the key is another one."""


class SealKey:
    """A key pair of one process. What is sealed to its public half only that process can open."""

    def __init__(self) -> None:
        """Make a new pair."""
        self._private = X25519PrivateKey.generate()
        self.public: bytes = self._private.public_key().public_bytes_raw()
        """The half that others may know: 32 bytes."""

    def __repr__(self) -> str:
        return f"<SealKey {self.public.hex()}>"

    def open(self, box: bytes, name: str) -> bytes:
        """Return what was sealed to this key under a name.

        :raises SealError: It was not, or it was changed in transit.
        """
        ephemeral, nonce, sealed = box[:KEY_SIZE], box[KEY_SIZE : KEY_SIZE + _NONCE], box[KEY_SIZE + _NONCE :]
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
            cipher = ChaCha20Poly1305(_derive(shared, ephemeral, self.public))
            return cipher.decrypt(nonce, sealed, name.encode())
        except (InvalidTag, ValueError) as error:
            raise SealError(f"what was sealed for {name!r} cannot be opened") from error


def seal(public: bytes, content: bytes, name: str) -> bytes:
    """Encrypt something under a name so that only the holder of a key pair can read it.

    :param public: The public half of the pair.
    :returns: An ephemeral public key, a nonce and the ciphertext.
    :raises SealError: The public key is none.
    """
    ephemeral = X25519PrivateKey.generate()
    half = ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise SealError("there is no such public key") from error
    nonce = os.urandom(_NONCE)
    sealed = ChaCha20Poly1305(_derive(shared, half, public)).encrypt(nonce, content, name.encode())
    return half + nonce + sealed


class Vault:
    """Encrypts what is kept in the store, and derives what need not be kept, with a key that is not in it."""

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes.

        :raises ValueError: It has another length.
        """
        self._cipher = ChaCha20Poly1305(key)
        self._key = key

    def derive(self, size: int, *parts: bytes) -> bytes:
        """Return bytes that follow from the key and these parts.

        The same parts give the same bytes. The bytes tell nothing of the key or the parts, nor the parts of the bytes.
        """
        # Each part with its length, so that no two lists of parts are one.
        framed = b"".join(len(part).to_bytes(8) + part for part in parts)
        return HKDF(algorithm=hashes.SHA256(), length=size, salt=None, info=_DERIVED + framed).derive(self._key)

    def encrypt(self, content: bytes, name: str) -> bytes:
        """Encrypt the content of the row of a name."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, content, _VAULT + name.encode())

    def decrypt(self, stored: bytes, name: str) -> bytes:
        """Return the content of the row of a name.

        :raises SealError: It was encrypted with another key or for another row, or was changed.
        """
        nonce, sealed = stored[1 : 1 + _NONCE], stored[1 + _NONCE :]
        try:
            if stored[:1] != _VERSION:
                raise SealError(f"{name} is encrypted in a way that is not known here")
            return self._cipher.decrypt(nonce, sealed, _VAULT + name.encode())
        except (InvalidTag, ValueError) as error:
            raise SealError(f"{name} cannot be decrypted: the key is another one, or it was changed") from error


def new_key() -> bytes:
    """Return a new key for a vault."""
    return ChaCha20Poly1305.generate_key()


def key_of_text(text: str) -> bytes:
    """Return the key that a text stands for: 32 bytes in base64.

    :raises ValueError: It stands for none. The message does not show it.
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE:
        # From here on nothing may carry the text, not even as the cause of an error.
        raise ValueError(f"must be {KEY_SIZE} bytes in base64")
    return key


def text_of_key(key: bytes) -> str:
    """Return the text that stands for a key."""
    return base64.b64encode(key).decode()


def _derive(shared: bytes, ephemeral: bytes, public: bytes) -> bytes:
    """Return the key of one box. Both public keys are bound into it, so it is that of this box alone."""
    return HKDF(algorithm=hashes.SHA256(), length=KEY_SIZE, salt=None, info=_SEAL + ephemeral + public).derive(shared)
