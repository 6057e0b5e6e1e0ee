"""Which requests a page of another site has a browser make.

Whatever a page is, a browser sends the simple requests that it makes to any address, and to loopback too, with what it
has remembered of user and password. So a page that somebody looks at could deploy functions where no key is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from homing_server.front.http.host_names import is_loopback

_SAME: Final = frozenset({b"same-origin", b"same-site", b"none"})


def comes_from_elsewhere(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request was made by a page of another host than this server's, which is not on this host either.

    Browsers say so by `Origin`, and by `Sec-Fetch-Site` also where they send no origin; other clients say neither.
    Source: the rules of Go's net/http.CrossOriginProtection.
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
        return bool(site) and site not in _SAME
    try:
        page = urlsplit(origin.decode("latin-1"))
        page_host = page.hostname or ""
    except ValueError:
        return True
    if not page_host:
        return True
    return not is_loopback(page_host) and page.netloc.lower() != host.decode("latin-1").lower()
