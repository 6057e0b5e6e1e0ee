"""Keeps callbacks inside the networks that they may go to, whatever their hosts resolve to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from homing_worker.settings import Network


class ForbiddenAddressError(Exception):
    """A host is, or resolves to, an address that callbacks may not go to."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} is {address}" if host != address else address)
        self.host = host
        self.address = address


class GuardedResolver(AbstractResolver):
    """Resolves a host and refuses it unless every one of its addresses is allowed.

    The connection is made to an address that was checked, so that a name cannot resolve to another one in between.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a host.

        :raises ForbiddenAddressError: One of its addresses is not allowed.
        :raises OSError: It does not resolve.
        """
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            self._check(host, result["host"])
        return found

    async def close(self) -> None:
        """Free the resolver."""
        await self._resolver.close()

    def check_literal(self, host: str) -> None:
        """Check a host that is an address already, which is never resolved; names pass.

        :raises ForbiddenAddressError: The address is not allowed.
        """
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return
        self._check(host, host)

    def _check(self, host: str, address: str) -> None:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if not any(parsed.version == network.version and parsed in network for network in self._networks):
            raise ForbiddenAddressError(host, address)
