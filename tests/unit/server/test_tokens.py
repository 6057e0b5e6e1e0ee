"""Opaque tokens hold what was put into them, and nothing else passes for one."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing_server.errors import ApiError, Code
from homing_server.rules.tokens import decode_token, encode_token

contents = st.dictionaries(st.text(max_size=8), st.integers(-(2**63) + 1, 2**63 - 1) | st.text(), max_size=4)


def types(content: dict[str, int | str]) -> dict[str, type[int | str]]:
    return {name: type(value) for name, value in content.items()}


def refusal(token: str, kind: str = "results") -> ApiError:
    with pytest.raises(ApiError) as caught:
        decode_token(kind, token, field="resume_token", holds={"after": str})
    return caught.value


@given(contents)
def test_token_holds_what_was_put_into_it(content: dict[str, int | str]) -> None:
    token = encode_token("results", content)
    assert decode_token("results", token, field="resume_token", holds=types(content)) == content
    assert token.isascii()
    assert not set(token) & set("+/= ")


@given(st.text())
def test_whatever_else_is_refused(token: str) -> None:
    error = refusal(token)
    assert error.code is Code.INVALID_ARGUMENT
    (violation,) = error.violations
    assert violation.field == "resume_token"
    assert violation.description == "is not a token that this server gave out"


@given(contents, st.data())
def test_cut_token_is_refused(content: dict[str, int | str], data: st.DataObject) -> None:
    token = encode_token("results", content)
    refusal(token[: data.draw(st.integers(0, len(token) - 1))])


@given(contents, st.data())
def test_changed_token_is_refused_or_the_same(content: dict[str, int | str], data: st.DataObject) -> None:
    token = encode_token("results", content)
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.sampled_from("abcXYZ019-_")) + token[place + 1 :]
    try:
        actual = decode_token("results", changed, field="resume_token", holds=types(content))
    except ApiError:
        return
    assert actual == content  # the last letter has bits that mean nothing


def test_token_of_another_kind_is_refused() -> None:
    refusal(encode_token("functions", {"after": "a"}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b'[2,"results",{"after":"a"}]',
        b'[1,"results",7]',
        b'[1,"results",{}]',
        b'[1,"results",{"after":7}]',
        b'[1,"results",{"after":"a","more":1}]',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_sealed_nonsense_is_refused(body: bytes) -> None:
    sealed = zlib.crc32(body).to_bytes(4) + body
    refusal(base64.urlsafe_b64encode(sealed).decode().rstrip("="))


def test_numbers_that_no_store_can_compare_with_are_refused() -> None:
    token = encode_token("results", {"seq": 2**63})
    with pytest.raises(ApiError):
        decode_token("results", token, field="resume_token", holds={"seq": int})
