"""What is sealed is opened by its owner alone, whole and in its place."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from homing_core.sealing import SealError, SealKey, Vault, key_of_text, new_key, seal, text_of_key

VALUE = b"correct horse battery staple"


def changed(content: bytes) -> list[bytes]:
    """Return the same with one bit changed, for each byte, and cut off."""
    return [
        *(content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :] for n in range(len(content))),
        *(content[:n] for n in range(len(content))),
        content + b"\0",
    ]


@pytest.mark.parametrize("value", [b"", b"x", VALUE, bytes(2_000_000)], ids=len)
def test_its_owner_opens_a_box(value: bytes) -> None:
    key = SealKey()
    box = seal(key.public, value, "billing")

    assert key.open(box, "billing") == value
    assert VALUE not in box


def test_a_box_is_what_others_would_make_by_the_same_rules() -> None:
    """Servers and workers may be of different versions."""
    key, ephemeral, nonce = SealKey(), X25519PrivateKey.generate(), bytes(range(12))
    half = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(key.public))
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"homing seal v1" + half + key.public)
    sealed = ChaCha20Poly1305(kdf.derive(shared)).encrypt(nonce, VALUE, b"billing")

    assert key.open(half + nonce + sealed, "billing") == VALUE


def test_nobody_else_opens_a_box() -> None:
    box = seal(SealKey().public, VALUE, "billing")

    with pytest.raises(SealError):
        SealKey().open(box, "billing")


def test_a_box_that_was_changed_or_is_another_functions_stays_shut() -> None:
    key = SealKey()
    box = seal(key.public, VALUE, "billing")

    for other in changed(box):
        with pytest.raises(SealError):
            key.open(other, "billing")
    with pytest.raises(SealError, match="'mail'"):
        key.open(box, "mail")


def test_a_key_is_not_shown_and_no_box_is_like_another() -> None:
    key = SealKey()

    assert seal(key.public, VALUE, "a") != seal(key.public, VALUE, "a")
    assert repr(key) == f"<SealKey {key.public.hex()}>"


def test_what_is_derived_follows_from_the_key_and_each_part() -> None:
    vault = Vault(bytes(32))
    parts = [(), (b"",), (b"", b""), (b"a", b"bc"), (b"ab", b"c"), (b"abc",), (b"bc", b"a")]

    derived = [vault.derive(38, *each) for each in parts]

    assert len(set(derived)) == len(parts)
    assert {len(each) for each in derived} == {38}
    assert derived == [Vault(bytes(32)).derive(38, *each) for each in parts]
    assert not set(derived) & {Vault(bytes([1] * 32)).derive(38, *each) for each in parts}


def test_what_is_derived_stays_the_same_from_version_to_version() -> None:
    """A call that is repeated after an upgrade is given the key that it was given before."""
    assert Vault(bytes(range(32))).derive(38, b"api key", b"root").hex() == (
        "d03701f3aa2b30ddd5452b52f6b78b553304b7310d15c34ac71dc568b8b8fe01a478386e1b0c"
    )


@pytest.mark.parametrize("public", [b"", b"short", bytes(32), bytes(33)], ids=["none", "short", "zero", "long"])
def test_what_is_no_public_key_is_refused(public: bytes) -> None:
    with pytest.raises(SealError):
        seal(public, VALUE, "billing")


def test_the_vault_gives_back_what_it_was_given() -> None:
    vault = Vault(new_key())

    stored = vault.encrypt(VALUE, "secret a")

    assert vault.decrypt(stored, "secret a") == VALUE
    assert VALUE not in stored
    assert vault.encrypt(VALUE, "secret a") != stored


def test_the_vault_opens_what_earlier_versions_have_stored() -> None:
    stored = bytes.fromhex(
        "01b03bff5ca59bae6cad5223c7a4035ba10b4693eff5025f951eef98c32f11c8"
        "70bac115157b2ee085251d971f370563b0c09252392db129ea"
    )

    assert Vault(bytes(range(32))).decrypt(stored, "secret a") == VALUE


def test_what_is_encrypted_in_an_unknown_way_is_told_so() -> None:
    vault = Vault(new_key())
    stored = vault.encrypt(VALUE, "secret a")

    for other in (b"\x02" + stored[1:], b""):
        with pytest.raises(SealError, match=r"^secret a is encrypted in a way that is not known here$"):
            vault.decrypt(other, "secret a")


def test_the_vault_refuses_another_key_another_row_and_what_was_changed() -> None:
    key = new_key()
    vault = Vault(key)
    stored = vault.encrypt(VALUE, "secret a")

    with pytest.raises(SealError, match="secret a cannot be decrypted"):
        Vault(new_key()).decrypt(stored, "secret a")
    with pytest.raises(SealError, match="secret b cannot be decrypted"):
        vault.decrypt(stored, "secret b")
    for other in changed(stored):
        with pytest.raises(SealError):
            vault.decrypt(other, "secret a")
    assert Vault(key).decrypt(stored, "secret a") == VALUE


def test_a_key_is_32_bytes_in_base64() -> None:
    key = new_key()

    assert key_of_text(text_of_key(key) + "\n") == key
    for text in ("", "not base64!", "§", "!" + text_of_key(key), text_of_key(key[:31]), text_of_key(key + b"\0")):
        with pytest.raises(ValueError, match=r"^must be 32 bytes in base64$") as refused:
            key_of_text(text)
        assert refused.value.__context__ is None, "it may carry the key"
