"""A client of HTTP that sends what it is told and shows what it gets, each header by itself."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

Headers = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: Headers
    """Names in lower case, in order."""
    body: bytes

    def get(self, name: str) -> str:
        """Return the value of a header that is there once."""
        (value,) = self.get_all(name)
        return value

    def get_all(self, name: str) -> list[str]:
        """Return the values of a header, in order."""
        return [value for each, value in self.headers if each == name]

    @property
    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode()


def ask(
    address: str,
    method: str,
    target: str,
    headers: Headers | None = None,
    body: bytes | None = None,
    *,
    timeout: float = 60.0,
) -> Reply:
    """Make a request over a connection of its own, and return the answer.

    :param address: ``HOST:PORT``.
    :param body: None for none, and then no header speaks of one.
    """
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        says_host = any(name.lower() == "host" for name, _ in headers or ())
        connection.putrequest(method, target, skip_host=says_host, skip_accept_encoding=True)
        for name, value in headers or ():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        got = [(name.lower(), value) for name, value in response.getheaders()]
        return Reply(status=response.status, headers=got, body=response.read())
    finally:
        connection.close()
