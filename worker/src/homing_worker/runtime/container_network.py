"""The network that containers are in, made where it is missing: none of them reaches another."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from aiodocker import Docker, DockerError

from homing_core.reasons import FailureReason
from homing_worker.runtime.base import StartFailedError
from homing_worker.runtime.container import ENGINE_ERRORS

_log = structlog.get_logger(__name__)

_TIMEOUT: Final = 30.0
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


async def ensure_network(docker: Docker, name: str) -> str:
    """Make the network where it is missing; return the address of this host in it, empty where it has none.

    One that exists is taken as it is: the operator may have made it.

    :raises StartFailedError: The engine makes none.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            shown = await _show(docker, name)
            if shown is None:
                await _make(docker, name)
                shown = await _show(docker, name) or {}
    except (*ENGINE_ERRORS, TimeoutError) as error:
        raise StartFailedError(
            FailureReason.START_FAILED, f"the network {name} of the Docker Engine cannot be made: {error}"
        ) from error
    return gateway_of((shown.get("IPAM") or {}).get("Config") or [])


async def _show(docker: Docker, name: str) -> Mapping[str, Any] | None:
    try:
        shown: Mapping[str, Any] = await (await docker.networks.get(name)).show()
    except DockerError as error:
        if error.status == _NOT_FOUND:
            return None
        raise
    return shown


async def _make(docker: Docker, name: str) -> None:
    try:
        await docker.networks.create(
            {
                "Name": name,
                "Driver": "bridge",
                "CheckDuplicate": True,
                "Options": {"com.docker.network.bridge.enable_icc": "false"},
            }
        )
    except DockerError as error:
        # Another worker has just made it.
        if error.status != _CONFLICT:
            raise
    else:
        _log.info("container_network_made", network=name)


def gateway_of(configs: Sequence[Mapping[str, str]]) -> str:
    """Return the address of this host in a network of the engine, given its IPAM configuration; empty for none.

    An engine that has just made the network names no gateway before it is started again. It takes the first address of
    the subnet then, as the documentation of ``docker network create --gateway`` has it.
    """
    for config in configs:
        if gateway := config.get("Gateway"):
            return gateway
        if subnet := config.get("Subnet"):
            return str(next(ipaddress.ip_network(subnet, strict=False).hosts()))
    return ""
