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
        ("localhosts", False),
        ("[::1", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_names(host: str, allowed: bool) -> None:  # noqa: FBT001
    names = HostNames.of("127.0.0.1:8080", "http://data.example:81/x")
    assert names.allow(host) is allowed
    assert HostNames.of("0.0.0.0:8080", "").allow(host)


@pytest.mark.parametrize("listen", ["127.0.0.1:80", "[::1]:80", "localhost:80", "LOCALHOST:80", "a.localhost:80"])
def test_on_loopback_without_a_url_of_its_own_it_has_the_names_of_loopback_alone(listen: str) -> None:
    names = HostNames.of(listen, "")
    assert names == HostNames(any=False) == HostNames(any=False, also="")
    assert names.allow("localhost")
    assert not names.allow("data.example")


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "homing.example:80"])
def test_what_is_served_to_other_hosts_has_any_name(listen: str) -> None:
    assert HostNames.of(listen, "") == HostNames(any=True)
