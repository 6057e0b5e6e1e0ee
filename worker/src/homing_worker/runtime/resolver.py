"""Resolves the hosts of deliveries and of functions that are URLs, to nothing but what was checked (SSRF)."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

from homing_core.guard import Guard, Target

LOOKUP_TIMEOUT: Final = 5.0
"""Seconds that the name servers have to tell the addresses of a host."""
_TRY_TIMEOUT: Final = 1.5
_TRIES: Final = 2


class GuardedResolver(AbstractResolver):
    """Resolves a host and refuses it unless every one of its addresses is allowed.

    The connection is made to an address that was checked, so that a name cannot resolve to another one in between.
    Lookups wait on no thread, and there is one at a time for each host: name servers that do not answer hold up
    nothing but the hosts that they are asked for.
    """

    def __init__(self, guard: Guard, resolver: AbstractResolver | None = None) -> None:
        """Prepare to resolve.

        :param resolver: Asked for the addresses; where none is given the name servers of this machine, by c-ares.
        """
        self._guard = guard
        self._resolver = resolver or AsyncResolver(timeout=_TRY_TIMEOUT, tries=_TRIES)
        self._lookups: dict[tuple[str, int, socket.AddressFamily], asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a host.

        :raises ForbiddenTargetError: One of its addresses is not allowed.
        :raises OSError: It does not resolve, or not in time.
        """
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                found = await asyncio.shield(self._lookup(host, port, family))
        except TimeoutError:
            raise OSError(None, f"no name server told the address of {host} within {LOOKUP_TIMEOUT:g} s") from None
        # The scheme makes no difference to what is allowed.
        target = Target(scheme="", host=host.lower(), port=port)
        self._guard.check_resolved(target, [result["host"] for result in found])
        return found

    async def close(self) -> None:
        """Free the resolver."""
        for lookup in self._lookups.values():
            lookup.cancel()
        await self._resolver.close()

    def _lookup(self, host: str, port: int, family: socket.AddressFamily) -> asyncio.Task[list[ResolveResult]]:
        key = (host, port, family)
        known = self._lookups.get(key)
        if known is not None:
            return known

        def forget(done: asyncio.Task[list[ResolveResult]]) -> None:
            del self._lookups[key]
            # Whoever waited may have given up: then nobody else takes note of the error.
            if not done.cancelled():
                done.exception()

        lookup = self._lookups[key] = asyncio.create_task(self._resolver.resolve(host, port, family))
        lookup.add_done_callback(forget)
        return lookup
