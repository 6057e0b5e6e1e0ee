"""What homing signs, others verify, and what was tampered with they do not."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from homing_core.signing import Signer, new_key, read_key, show_key
from support.signatures import signature


def headers(keys: list[bytes], body: bytes, *, id_: str = "0193", timestamp: int | None = None) -> dict[str, str]:
    now = int(time.time()) if timestamp is None else timestamp
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(keys, id_=id_, timestamp=now, body=body),
    }


@given(st.text(max_size=200), st.binary(min_size=24, max_size=64))
def test_others_verify_it(text: str, key: bytes) -> None:
    body = json.dumps(text).encode()

    Webhook(show_key(key)).verify(body, headers([key], body))


@given(st.text(max_size=200), st.binary(min_size=24, max_size=64))
def test_it_is_what_others_sign(text: str, key: bytes) -> None:
    at = datetime.fromtimestamp(1_700_000_000, UTC)

    assert signature([key], id_="m", timestamp=1_700_000_000, body=text.encode()) == Webhook(show_key(key)).sign(
        "m", at, text
    )


def test_each_of_two_keys_verifies_it_and_no_third() -> None:
    former, newer = new_key(), new_key()
    signed = headers([newer, former], b"{}")

    for key in (former, newer):
        Webhook(show_key(key)).verify(b"{}", signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(show_key(new_key())).verify(b"{}", signed)


@pytest.mark.parametrize(
    "tampered",
    [
        pytest.param({"body": b"{ }"}, id="body"),
        pytest.param({"webhook-id": "0194"}, id="id"),
        pytest.param({"webhook-timestamp": str(int(time.time()) - 120)}, id="timestamp"),
        pytest.param({"webhook-signature": "v1,AAAA"}, id="signature"),
    ],
)
def test_what_was_changed_does_not_verify(tampered: dict[str, str | bytes]) -> None:
    key = new_key()
    signed: dict[str, str | bytes] = {**headers([key], b"{}"), **tampered}
    body = signed.pop("body", b"{}")

    with pytest.raises(WebhookVerificationError):
        Webhook(show_key(key)).verify(body, signed)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-400, 400])
def test_what_is_old_or_from_the_future_does_not_verify(seconds: int) -> None:
    key = new_key()

    with pytest.raises(WebhookVerificationError):
        Webhook(show_key(key)).verify(b"{}", headers([key], b"{}", timestamp=int(time.time()) + seconds))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_a_body_in_parts_is_signed_alike(parts: list[bytes]) -> None:
    keys = [b"x" * 32, b"y" * 32]
    signer = Signer(keys, id_="m", timestamp=5)
    for part in parts:
        signer.feed(part)

    assert signer.signature() == signature(keys, id_="m", timestamp=5, body=b"".join(parts))


@pytest.mark.parametrize("key", [new_key(), b"x" * 24, b"x" * 64], ids=["new", "shortest", "longest"])
def test_keys_are_read_as_they_are_shown(key: bytes) -> None:
    assert read_key(show_key(key)) == key


def test_a_new_key_has_256_bits_that_no_other_has() -> None:
    assert len(new_key()) == 32
    assert new_key() != new_key()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "whsec_c2hvcnQ=",
        "secret",
        show_key(b"x" * 23),
        show_key(b"x" * 65),
        show_key(b"x" * 32)[6:],
        show_key(b"x" * 32).replace("whsec_", "whsec_!"),
        show_key(b"x" * 32) + "\n",
        "whsec_§§§§",
    ],
)
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_ and 24 to 64 bytes in base64"):
        read_key(text)
