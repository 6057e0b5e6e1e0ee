"""Names of HTTP headers, in lower case, that are not passed on from one message to another."""

from __future__ import annotations

from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection and not to the message."""

NOT_PASSED_ON: Final = HOP_BY_HOP | {"content-length", "expect", "host", "proxy"}
"""Headers that a request never takes from elsewhere. Programs behind CGI or a watchdog take ``Proxy`` for the proxy
that they are to use (httpoxy), and a server that does not know ``Expect`` never says that it may go on."""
