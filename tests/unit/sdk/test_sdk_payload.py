"""How payloads travel."""

from __future__ import annotations

import pytest

from homing import InvalidRequestError, PayloadTooLargeError
from homing._core.payload import MAX_PAYLOAD, encode_payload


@pytest.mark.parametrize(
    ("value", "content_type", "data"),
    [
        ("grüße", "text/plain; charset=utf-8", "grüße".encode()),
        ("", "text/plain; charset=utf-8", b""),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (bytearray(b"ab"), "application/octet-stream", b"ab"),
        (memoryview(b"ab"), "application/octet-stream", b"ab"),
        ({"a": [1, None, "é"]}, "application/json", '{"a":[1,null,"é"]}'.encode()),
        (7, "application/json", b"7"),
        (False, "application/json", b"false"),
    ],
    ids=["text", "no-text", "bytes", "bytearray", "memoryview", "object", "number", "false"],
)
def test_the_type_decides_how_it_goes(value: object, content_type: str, data: bytes) -> None:
    payload = encode_payload(value, None)

    assert payload is not None
    assert (payload.content_type, payload.data) == (content_type, data)


def test_nothing_is_no_payload() -> None:
    assert encode_payload(None, None) is None


def test_a_given_content_type_wins() -> None:
    payload = encode_payload("<a/>", "application/xml")

    assert payload is not None
    assert (payload.content_type, payload.data) == ("application/xml", b"<a/>")


def test_the_limit_itself_is_allowed() -> None:
    payload = encode_payload(b"x" * MAX_PAYLOAD, None)

    assert payload is not None
    assert len(payload.data) == 64 * 2**20


@pytest.mark.parametrize("value", [b"x" * (MAX_PAYLOAD + 1), "é" * (MAX_PAYLOAD // 2 + 1)], ids=["bytes", "text"])
def test_more_than_the_limit_is_refused(value: object) -> None:
    with pytest.raises(PayloadTooLargeError, match=r"payload: must have at most 67108864 bytes \(64 MiB\)") as caught:
        encode_payload(value, None)

    assert caught.value.limit == 67_108_864
    assert caught.value.size > 67_108_864
    assert caught.value.violations[0].field == "payload"


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": b"x"}], ids=["object", "set", "bytes-inside"])
def test_what_json_cannot_carry_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="payload must be str, bytes or what JSON can carry"):
        encode_payload(value, None)


def test_values_that_json_cannot_carry_are_invalid() -> None:
    loop: list[object] = []
    loop.append(loop)

    for value in (float("nan"), loop, "\ud800", {"a": "\ud800"}):
        with pytest.raises(InvalidRequestError, match="payload"):
            encode_payload(value, None)
