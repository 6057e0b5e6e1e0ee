"""Where deliveries and calls of functions that are URLs may go: not to what only this network can reach (SSRF).

What a URL says by itself is checked when it is accepted; what its host resolves to, when a connection is
made, and the connection goes to the address that was checked. The ranges are those that IANA's registries of
special-purpose addresses call not globally reachable, and those that carry another address inside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

GATEWAY: Final = "gateway"
"""The host that names the server itself."""
DEFAULT_PORTS: Final = (80, 443, 8080, 8443)

_MAX_HOST: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")

_FORBIDDEN: Final[Sequence[tuple[str, str]]] = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "a private network"),
    ("100.64.0.0/10", "a carrier's network"),
    ("127.0.0.0/8", "this host"),
    ("169.254.0.0/16", "a link-local network, where clouds keep their metadata"),
    ("168.63.129.16/32", "where a cloud keeps its control endpoint"),
    ("172.16.0.0/12", "a private network"),
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "reserved for documentation"),
    ("192.31.196.0/24", "reserved for AS112"),
    ("192.52.193.0/24", "reserved for AMT"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "a private network"),
    ("192.175.48.0/24", "reserved for AS112"),
    ("198.18.0.0/15", "reserved for benchmarks"),
    ("198.51.100.0/24", "reserved for documentation"),
    ("203.0.113.0/24", "reserved for documentation"),
    ("224.0.0.0/4", "a multicast group"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "no address"),
    ("::1/128", "this host"),
    ("::/96", "an IPv4 address in a form that is out of use"),
    ("::ffff:0:0:0/96", "an IPv4 address that is translated"),
    ("64:ff9b::/96", "an IPv4 address behind NAT64"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
    ("100::/64", "a network that discards"),
    ("100:0:0:1::/64", "a network of dummy addresses"),
    ("2001::/23", "reserved for protocols, Teredo among them"),
    ("2001:db8::/32", "reserved for documentation"),
    ("2002::/16", "an IPv4 address behind 6to4"),
    ("2620:4f:8000::/48", "reserved for AS112"),
    ("3fff::/20", "reserved for documentation"),
    ("5f00::/16", "reserved for segment routing"),
    ("fc00::/7", "a private network"),
    ("fe80::/10", "a link-local network"),
    ("fec0::/10", "a site-local network"),
    ("ff00::/8", "a multicast group"),
)
_RANGES: Final[Sequence[tuple[Network, str]]] = tuple(
    (ipaddress.ip_network(network), what) for network, what in _FORBIDDEN
)


class ForbiddenTargetError(Exception):
    """A request may not go where it was to go; the message says why, and completes «the URL …»."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A URL that may be delivered to, as far as it says by itself, before its host is resolved."""

    scheme: str
    host: str
    """In lower case; an IPv6 address without brackets, in its one shortest form."""
    port: int

    @property
    def receiver(self) -> str:
        """Return what distinguishes receivers: scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Guard:
    """Decides where deliveries may go."""

    def __init__(
        self,
        *,
        networks: Collection[Network] = (),
        hosts: Collection[str] = (),
        ports: Collection[int] | None = DEFAULT_PORTS,
        exchanges: Collection[str] = (),
        settings: str = "",
    ) -> None:
        """Prepare to decide.

        :param networks: Allowed besides what is public, at any port.
        :param hosts: Names, or suffixes as in ``*.example.org``, that are allowed at any port and wherever they lead.
        :param ports: Of all other hosts; None for any.
        :param exchanges: Exchanges of the broker that deliveries may go to; queues as ``/QUEUE``; ``*`` for all.
        :param settings: The names of those by which an operator allows more, which refusals tell.
        """
        self._networks = tuple(networks)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._ports = None if ports is None else frozenset(ports)
        self._exchanges = frozenset(exchanges)
        self._settings = settings

    def check_exchange(self, exchange: str, routing_key: str) -> None:
        """Check that deliveries may go to an exchange of the broker, or by the default one to a queue.

        :raises ForbiddenTargetError: The operator has not allowed it. Whoever may invoke a function would otherwise
            publish to any exchange, by the rights of the workers' user.
        """
        name = exchange or f"/{routing_key}"
        if not self._exchanges & {"*", name}:
            raise ForbiddenTargetError(f"names {name!r}, which HOMING_AMQP_DESTINATIONS does not allow")

    def check_url(self, url: str) -> Target:
        """Check what a URL says by itself; return where it leads.

        :raises ForbiddenTargetError: It leads to where deliveries may not go, or cannot be read in one way only.
        """
        target = read_target(url)
        if self._names(target.host):
            return target
        address = _address(target.host)
        if address is not None:
            self.check_address(target.host, address)
            if self._allows(address):
                return target
        elif "." not in target.host and not self._networks:
            raise self._unallowed(f"names the host {target.host!r} without a domain, which is nowhere public")
        elif target.host.endswith(".localhost") and not self._networks:
            raise self._unallowed(f"names {target.host!r}, which is this host")
        if address is not None or not self._networks:
            self._check_port(target.port)
        return target

    def check_resolved(self, target: Target, addresses: Sequence[str]) -> None:
        """Check every address that a host resolves to.

        :raises ForbiddenTargetError: One of them is where deliveries may not go.
        """
        if self._names(target.host):
            return
        parsed = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
        for address in parsed:
            self.check_address(target.host, address)
        if not all(self._allows(address) for address in parsed):
            self._check_port(target.port)

    def check_address(self, host: str, address: Address) -> None:
        """Check one address.

        :param host: The name that led to it, for the message.
        :raises ForbiddenTargetError: Deliveries may not go there.
        """
        if self._allows(address):
            return
        shown = host if host == str(address) else f"{host}, which is {address}"
        for network, what in _RANGES:
            if _plain(address) in network:
                raise self._unallowed(f"leads to {shown}: {what} ({network})")

    def _unallowed(self, why: str) -> ForbiddenTargetError:
        return ForbiddenTargetError(f"{why}; {self._settings} allow more" if self._settings else why)

    def _allows(self, address: Address) -> bool:
        return any(_plain(address) in network for network in self._networks)

    def _names(self, host: str) -> bool:
        if host in self._hosts:
            return True
        parts = host.split(".")
        return any("*." + ".".join(parts[start:]) in self._hosts for start in range(1, len(parts)))

    def _check_port(self, port: int) -> None:
        if self._ports is not None and port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise self._unallowed(f"has port {port}; deliveries go to ports {allowed}")


def read_target(url: str) -> Target:
    """Read where a URL leads, unless it can be read in more ways than one.

    :raises ForbiddenTargetError: It is no absolute http or https URL, or one that parsers disagree about.
    """
    if any(character <= " " or character == "\x7f" for character in url) or "\\" in url:
        raise ForbiddenTargetError("has a space, a control character or a backslash in it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ForbiddenTargetError(f"cannot be read: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise ForbiddenTargetError("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise ForbiddenTargetError("must not have a user name or password in it")
    if "#" in url:
        raise ForbiddenTargetError("must not have a fragment")
    if not host:
        raise ForbiddenTargetError("has no host")
    if parts.netloc.endswith(":"):
        raise ForbiddenTargetError("has an empty port")
    if port == 0:
        raise ForbiddenTargetError("has port 0")
    if "[" in parts.netloc:
        host = _canonical_ipv6(host)
    else:
        check_host(host)
    return Target(scheme=parts.scheme, host=host, port=port or (443 if parts.scheme == "https" else 80))


def _canonical_ipv6(host: str) -> str:
    if "%" in host:
        raise ForbiddenTargetError("has an address with a zone")
    address = _address(host)
    if address is None:
        raise ForbiddenTargetError(f"has {host!r} in brackets, which is no IPv6 address")
    return address.compressed


def check_host(host: str) -> None:
    """Check that a host, in lower case, can be read in one way only: as a name, or as an IPv4 address.

    :raises ForbiddenTargetError: It cannot.
    """
    if not host.isascii():
        raise ForbiddenTargetError("has a host with characters other than ASCII; write it in its xn-- form")
    if "%" in host:
        raise ForbiddenTargetError("has a host with percent signs")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):
        # What ends in a number is an address to every resolver, in forms that many do not recognise as one.
        if _address(host) is None:
            raise ForbiddenTargetError(f"has the host {host!r}; write an address as four decimal numbers")
        return
    if len(host) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenTargetError(f"has the host {host[:64]!r}, which is no name of a host")


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one is mapped to, where it is: sockets take the one for the other."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
