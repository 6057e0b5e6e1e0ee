"""What a container is made with: its walls, and the limits of a function that names none. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from homing.v1.function_pb2 import Function
from homing_core.limits import MIB
from homing_worker.runtime.health_check import HealthCheck, annotated_check

PORT: Final = "8080/tcp"
SECRETS: Final = "/var/openfaas/secrets"
"""Where containers find the files with their secrets."""

LABEL_FUNCTION: Final = "dev.homing.function"
LABEL_REVISION: Final = "dev.homing.revision"
LABEL_OWNER: Final = "dev.homing.owner"
LABEL_DATA_DIR: Final = "dev.homing.data-dir"
LABEL_HEALTH_PATH: Final = "dev.homing.health-path"
"""By this label an image says where it tells whether it is ready."""
_WATCHDOG_PROGRAM: Final = "fprocess="
"""What a watchdog is to run: an image whose environment says it has one."""
_WATCHDOG_HEALTH_PATH: Final = "/_/health"

_TMP_BYTES: Final = 256 * MIB
"""What ``/tmp`` of a container holds, and each folder that its image declares as a volume: in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerDefaults:
    """What holds for containers whose function or image says nothing else."""

    network: str
    """The network of the engine that they are in."""
    memory_bytes: int
    """0 for no limit."""
    pids: int
    """Processes and threads; 0 for no limit."""
    user: str
    """The user, as UID or UID:GID, in place of root in an image that names none; empty for root."""


def container_config(
    function: Function,
    reference: str,
    image: Mapping[str, Any],
    defaults: ContainerDefaults,
    *,
    mounts: Sequence[Mapping[str, Any]],
    publish: bool,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Return what the engine is told of a container.

    :param reference: What names the image.
    :param image: The image's own configuration.
    :param publish: Whether the container is reached by a port of the engine's host.
    :param labels: Besides those that name the function.
    """
    memory = function.limits.memory_bytes or defaults.memory_bytes
    tmpfs = f"rw,nosuid,nodev,exec,mode=1777,size={_TMP_BYTES}"
    host: dict[str, Any] = {
        "ReadonlyRootfs": True,
        # A volume that the image declares would be a folder of the host, without a bound.
        "Tmpfs": dict.fromkeys({"/tmp", *(image.get("Volumes") or ())} - {SECRETS}, tmpfs),  # noqa: S108 its own
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "NetworkMode": defaults.network,
        # Bounded, and never blocking: a function that floods its output fills no disk and waits for no reader.
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": "1m", "max-file": "1", "mode": "non-blocking", "max-buffer-size": "1m"},
        },
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": function.limits.cpu_millis * 1_000_000,
        "PidsLimit": function.limits.pids or defaults.pids,
        "Mounts": list(mounts),
    }
    if publish:
        host["PortBindings"] = {PORT: [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    return {
        "Image": reference,
        "User": image.get("User") or defaults.user,
        "Env": [f"{name}={value}" for name, value in function.env.items()],
        "ExposedPorts": {PORT: {}},
        # The worker looks itself; a health check inside would only cost.
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {LABEL_FUNCTION: function.name, LABEL_REVISION: str(function.revision), **labels},
        "HostConfig": host,
    }


def health_check_of(config: Mapping[str, Any], function: Function) -> HealthCheck | None:
    """Return where a container says whether it is ready, given its configuration; None where it is not known to."""
    annotated = annotated_check(function.annotations)
    if annotated is not None:
        return annotated
    path: str = (config.get("Labels") or {}).get(LABEL_HEALTH_PATH, "")
    if path.startswith("/"):
        return HealthCheck(path=path)
    has_watchdog = any(variable.startswith(_WATCHDOG_PROGRAM) for variable in config.get("Env") or ())
    return HealthCheck(path=_WATCHDOG_HEALTH_PATH, named=False) if has_watchdog else None
