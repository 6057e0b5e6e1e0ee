"""What is sealed is opened by its owner alone, whole and in its place."""

from __future__ import annotations

import pytest

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
    for text in ("", "not base64!", text_of_key(key[:31]), text_of_key(key + b"\0")):
        with pytest.raises(ValueError, match=r"^must be 32 bytes in base64$") as refused:
            key_of_text(text)
        assert refused.value.__context__ is None, "it may carry the key"
