"""Pages of other sites: what they have browsers do is told apart from what others do."""

from __future__ import annotations

import base64

import pytest

from homing_server.front.http.authorization import shown_key
from homing_server.front.http.origins import comes_from_elsewhere


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),
        ({"host": "homing.example"}, False),
        ({"sec-fetch-site": "same-origin"}, False), ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False), ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "something-new"}, True),
        ({"origin": "https://evil.example", "host": "127.0.0.1:8080"}, True),
        ({"origin": "https://evil.example", "host": "127.0.0.1:8080", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://localhost:3000", "host": "127.0.0.1:8080"}, False),
        ({"origin": "http://127.0.0.1:8080", "host": "127.0.0.1:8080"}, False),
        ({"origin": "https://homing.example", "host": "homing.example"}, False),
        ({"origin": "https://HOMING.example", "host": "homing.example"}, False),
        ({"origin": "https://other.example", "host": "homing.example"}, True),
        ({"origin": "https://homing.example.evil.example", "host": "homing.example"}, True),
        ({"origin": "null", "host": "127.0.0.1:8080"}, True), ({"origin": "file://", "host": "127.0.0.1"}, True),
        ({"origin": "https://[", "host": "127.0.0.1"}, True),
    ],
)  # fmt: skip
def test_pages_of_other_sites(headers: dict[str, str], elsewhere: bool) -> None:  # noqa: FBT001 a row of the table
    assert comes_from_elsewhere([(name.encode(), value.encode()) for name, value in headers.items()]) is elsewhere


@pytest.mark.parametrize(
    ("shown", "key"),
    [
        ("", ""), ("Bearer ", ""), ("bearer", ""), ("Bearer k", "Bearer k"), ("Basic ?", "Basic ?"),
        ("Digest x", "Digest x"),
        ("Basic " + base64.b64encode(b"anybody:a:b").decode(), "Bearer a:b"),
        ("BASIC " + base64.b64encode(b":k").decode(), "Bearer k"),
        ("Basic " + base64.b64encode(b"nobody").decode(), "Bearer "),
        ("Basic " + base64.b64encode(b"a:\xff").decode(), "Basic YTr/"),
    ],
)  # fmt: skip
def test_a_key_is_shown_as_a_token_or_as_anybody_s_password(shown: str, key: str) -> None:
    assert shown_key(shown) == key
