"""Resolves the hosts of deliveries, and connects to nothing but what was checked."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from homing_core.guard import Guard, Target


class GuardedResolver(AbstractResolver):
    """Resolves a host and refuses it unless every one of its addresses is allowed.

    The connection is made to an address that was checked, so that a name cannot resolve to another one in between.
    """

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        """Prepare to resolve.

        :param resolver: Asked for the addresses; the system's where none is given.
        """
        self._guard = guard
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a host.

        :raises ForbiddenTargetError: One of its addresses is not allowed.
        :raises OSError: It does not resolve.
        """
        found = await self._resolver.resolve(host, port, family)
        # The scheme makes no difference to what is allowed.
        target = Target(scheme="", host=host.lower(), port=port)
        self._guard.check_resolved(target, [result["host"] for result in found])
        return found

    async def close(self) -> None:
        """Free the resolver."""
        await self._resolver.close()
