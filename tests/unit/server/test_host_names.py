"""On loopback the HTTP front is asked under its own names alone."""

from __future__ import annotations

import pytest

from homing_server.front.http.host_names import HostNames


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("127.3.2.1", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("homing.localhost:8080", True),
        ("[::1]:8080", True),
        ("", True),
        ("data.example", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("[::1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_names(host: str, allowed: bool) -> None:  # noqa: FBT001
    names = HostNames.of("127.0.0.1:8080", "http://data.example:81/x")
    assert names.allow(host) is allowed
    assert HostNames.of("0.0.0.0:8080", "").allow(host)
