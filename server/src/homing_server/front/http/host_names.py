"""The names under which the HTTP front may be asked for something.

A page in a browser can give its own name the address of this host (DNS rebinding), and then read what is served on
loopback to whoever is here. The name gives it away: requests to a loopback address must have one that is its own.
"""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True, slots=True)
class HostNames:
    """What the header `Host` may say."""

    any: bool
    """Whether it may say anything: it is served to more than this host."""
    also: str = ""
    """A name that is allowed besides those of loopback; empty for none."""

    @classmethod
    def of(cls, listen: str, data_url: str) -> Self:
        """Return the names of what is served at an address.

        :param data_url: The URL by which workers reach it, maybe by a proxy; empty where it is the address.
        """
        host = listen.rpartition(":")[0]
        return cls(any=not is_loopback(host), also=urlsplit(data_url).hostname or "")

    def allow(self, host: str) -> bool:
        """Tell whether a request with this header may be served; empty where it has none, which no browser sends."""
        return self.any or not host or _is_own(host, self.also)


@functools.lru_cache(maxsize=128)
def _is_own(host: str, also: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name == also


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Tell whether a name or address, the latter maybe in brackets, is that of loopback."""
    host = host.strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
