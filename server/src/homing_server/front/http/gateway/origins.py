"""What pages of browsers may ask of a server that asks nobody for a key.

Whatever a page is, a browser sends the simple requests that it makes to any address, and to loopback too. A server that
needs no key would run functions for every page that somebody here looks at.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from homing_server.front.http.host_names import is_loopback

_ANOTHER_SITE: Final = b"cross-site"


def comes_from_elsewhere(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request was made by a page of another host than this server's, which is not on this host either.

    Browsers say so by `Origin`, and by `Sec-Fetch-Site` also where they send no origin; other clients say neither.
    """
    origin = site = host = b""
    for name, value in headers:
        if name == b"origin":
            origin = value
        elif name == b"sec-fetch-site":
            site = value
        elif name == b"host":
            host = value
    if not origin:
        return site == _ANOTHER_SITE
    try:
        page = urlsplit(origin.decode("latin-1"))
        page_host = page.hostname or ""
    except ValueError:
        return True
    if not page_host:
        return True
    return not is_loopback(page_host) and page.netloc.lower() != host.decode("latin-1").lower()
