"""Runs container images through the Docker Engine API."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from homing.v1.function_pb2 import Function
from homing_core.ids import new_id
from homing_core.limits import MIB
from homing_core.reasons import FailureReason
from homing_worker.owner import OwnerLock, is_orphaned
from homing_worker.runtime.base import Instance, Runtime, StartFailedError
from homing_worker.runtime.container import ENGINE_ERRORS, Container
from homing_worker.runtime.container_log import ContainerLog
from homing_worker.runtime.secret_files import SecretFiles

_log = structlog.get_logger(__name__)

_NETWORK: Final = "bridge"
"""The network that containers are in by default."""
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
"""What ``/tmp`` of a container holds."""
_ENGINE_TIMEOUT: Final = 30.0
_DETECT_TIMEOUT: Final = 2.0
"""Seconds that the engine has to answer, and to be found at all."""
_NOT_FOUND: Final = 404


async def engine_answers(url: str) -> bool:
    """Return whether a Docker Engine answers at ``unix://PATH`` or ``http://HOST:PORT``."""
    docker = Docker(url=url)
    try:
        async with asyncio.timeout(_DETECT_TIMEOUT):
            await docker.version()
    except (*ENGINE_ERRORS, TimeoutError):
        return False
    finally:
        await docker.close()
    return True


class DockerRuntime(Runtime):
    """Runs functions that are images, each instance a container of its own."""

    source = "image"

    def __init__(
        self,
        *,
        url: str,
        data_dir: Path,
        files: SecretFiles,
        owner: str,
        start_timeout: float,
        pull_timeout: float,
        stop_grace: int,
    ) -> None:
        """Prepare to run containers.

        :param files: Lays out secrets for containers of an engine on this very system.
        """
        self._url = url
        self._data_dir = data_dir.resolve()
        self._files = files
        self._owner = owner
        self._lock = OwnerLock(self._data_dir, owner)
        self._start_timeout = start_timeout
        self._pull_timeout = pull_timeout
        self._stop_grace = stop_grace
        # Where the engine runs on this very system its containers can be reached by their addresses.
        self.host = ""
        self._direct = sys.platform == "linux" and url.startswith("unix://")
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._docker: Docker | None = None
        self._connector: aiohttp.UnixConnector | None = None
        self._probes: aiohttp.ClientSession | None = None
        self._engine: aiohttp.ClientSession | None = None
        """To the engine, for what aiodocker cannot do: keep the two streams of a log apart, and write a tar file."""
        self._log_turn = asyncio.Lock()

    async def open(self) -> None:
        """Connect, and remove what workers left behind that died.

        :raises StartFailedError: The engine does not answer.
        """
        self._lock.take()
        self._probes = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), cookie_jar=aiohttp.DummyCookieJar()
        )
        if self._url.startswith("unix://"):
            # A request is open for every container, to be notified of its end: there may be many.
            self._connector = aiohttp.UnixConnector(self._url.removeprefix("unix://"), limit=0)
            self._docker = Docker(url="unix://localhost", connector=self._connector)
            self._engine = aiohttp.ClientSession("http://localhost", connector=self._connector, connector_owner=False)
        else:
            self._docker = Docker(url=self._url)
            self._engine = aiohttp.ClientSession(self._url, connector=aiohttp.TCPConnector(limit=0))
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                version = await self._docker.version()
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise StartFailedError(
                FailureReason.START_FAILED, f"the Docker Engine at {self._url} does not answer: {error}"
            ) from error
        _log.info("docker_engine_connected", version=version.get("Version", ""), direct=self._direct)
        if self._direct:
            self.host = await self._gateway()
        await self._sweep(lambda owner: owner != self._owner and is_orphaned(self._data_dir, owner))

    async def _gateway(self) -> str:
        """Return the address of this host in the network that containers are in; empty where the engine has none."""
        assert self._docker is not None
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                network = await (await self._docker.networks.get(_NETWORK)).show()
        except (*ENGINE_ERRORS, TimeoutError) as error:
            _log.warning("progress_network_unknown", network=_NETWORK, error=str(error))
            return ""
        return gateway_of((network.get("IPAM") or {}).get("Config") or [])

    async def close(self) -> None:
        """Remove what is left of this worker, and disconnect."""
        for pull in self._pulls.values():
            pull.cancel()
        if self._docker is not None:
            await self._sweep(lambda owner: owner == self._owner)
            await self._docker.close()
        if self._engine is not None:
            await self._engine.close()
        if self._connector is not None:
            await self._connector.close()
        if self._probes is not None:
            await self._probes.close()
        self._lock.release()

    async def start(self, function: Function, secrets: Mapping[str, bytes], *, image_id: str = "") -> Instance:
        """Start a container of the function's image and wait until it is ready; pull the image where it is missing."""
        folder: Path | None = None
        if secrets and self._direct:
            try:
                folder = self._files.lay_out(secrets, for_all=True)
            except OSError as error:
                raise _no_secrets(str(error.strerror)) from error

        def free() -> None:
            if folder is not None:
                self._files.remove(folder)

        try:
            return await self._start(function, secrets, image_id, folder, free)
        except BaseException:
            free()
            raise

    async def _start(
        self,
        function: Function,
        secrets: Mapping[str, bytes],
        image_id: str,
        folder: Path | None,
        free: Callable[[], None],
    ) -> Instance:
        name = f"homing-{function.name}-{new_id()[-12:]}"
        config = self._config(function)
        if folder is not None:
            # Not "Binds", which makes an empty folder where the engine does not see this one.
            config["HostConfig"]["Mounts"] = [
                {"Type": "bind", "Source": str(folder), "Target": SECRETS, "ReadOnly": True}
            ]
        elif secrets:
            config["HostConfig"]["Mounts"] = [{"Type": "volume", "Target": SECRETS, "VolumeOptions": {"NoCopy": True}}]
        raw = await self._create(function, config, name, image_id)
        container: Container | None = None
        try:
            async with asyncio.timeout(self._start_timeout):
                if secrets and folder is None:
                    await self._put(raw, secrets)
                await raw.start()
                container = await self._attach(raw, function, name, free)
                await container.become_ready()
        except TimeoutError as error:
            lines = await container.last_lines() if container is not None else ""
            await self._discard(raw, container)
            raise StartFailedError(
                FailureReason.START_FAILED, f"the container was not ready within {self._start_timeout:g} s{lines}"
            ) from error
        except ENGINE_ERRORS as error:
            await self._discard(raw, container)
            raise StartFailedError(FailureReason.START_FAILED, f"the container cannot be started: {error}") from error
        except BaseException:
            await self._discard(raw, container)
            raise
        return container

    async def _put(self, raw: DockerContainer, secrets: Mapping[str, bytes]) -> None:
        """Write secrets into the volume of a container that is not started yet; it goes with the container.

        :raises StartFailedError: The engine does not take them.
        """
        assert self._engine is not None
        address = f"/containers/{raw.id}/archive"
        try:
            async with self._engine.put(address, params={"path": SECRETS}, data=_archive(secrets)) as response:
                response.raise_for_status()
        except ENGINE_ERRORS as error:
            raise _no_secrets(str(error)) from error

    async def _create(self, function: Function, config: dict[str, Any], name: str, image_id: str) -> DockerContainer:
        assert self._docker is not None
        if image_id:
            try:
                async with asyncio.timeout(_ENGINE_TIMEOUT):
                    return await self._docker.containers.create(config | {"Image": image_id}, name=name)
            except DockerError as error:
                if error.status != _NOT_FOUND:
                    raise _not_created(error) from error
                _log.warning("image_removed", function=function.name, image=function.image, image_id=image_id)
            except (*ENGINE_ERRORS, TimeoutError) as error:
                raise _not_created(error) from error
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                return await self._docker.containers.create(config, name=name)
        except DockerError as error:
            if error.status != _NOT_FOUND:
                raise _not_created(error) from error
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise _not_created(error) from error
        await self._pull(function.image)
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                return await self._docker.containers.create(config, name=name)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise _not_created(error) from error

    async def _attach(self, raw: DockerContainer, function: Function, name: str, free: Callable[[], None]) -> Container:
        assert self._engine is not None
        assert self._probes is not None
        shown = await raw.show()
        network = shown["NetworkSettings"]
        if self._direct:
            addresses = [network.get("IPAddress"), *(n.get("IPAddress") for n in network["Networks"].values())]
            host, port = next((address for address in addresses if address), "127.0.0.1"), "8080"
        else:
            host, port = "127.0.0.1", (network["Ports"].get(PORT) or [{"HostPort": "0"}])[0]["HostPort"]
        return Container(
            raw,
            name=name,
            revision=function.revision,
            image_id=shown["Image"],
            host=host,
            port=int(port),
            direct=self._direct,
            health_path=health_path_of(shown["Config"]),
            probes=self._probes,
            stop_grace=self._stop_grace,
            log=ContainerLog(self._engine, raw.id, turn=self._log_turn, same_clock=self._direct),
            free=free,
        )

    def _config(self, function: Function) -> dict[str, Any]:
        host: dict[str, Any] = {
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={_TMP_BYTES}"},  # noqa: S108 the container's own
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            # Bounded, and never blocking: a function that floods its output fills no disk and waits for no reader.
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": "1m", "max-file": "1", "mode": "non-blocking", "max-buffer-size": "1m"},
            },
        }
        if function.limits.memory_bytes:
            host |= {"Memory": function.limits.memory_bytes, "MemorySwap": function.limits.memory_bytes}
        if function.limits.cpu_millis:
            host["NanoCpus"] = function.limits.cpu_millis * 1_000_000
        if function.limits.pids:
            host["PidsLimit"] = function.limits.pids
        if not self._direct:
            host["PortBindings"] = {PORT: [{"HostIp": "127.0.0.1", "HostPort": ""}]}
        return {
            "Image": function.image,
            "Env": [f"{name}={value}" for name, value in function.env.items()],
            "ExposedPorts": {PORT: {}},
            # The worker looks itself; a health check inside would only cost.
            "Healthcheck": {"Test": ["NONE"]},
            "Labels": {
                LABEL_FUNCTION: function.name,
                LABEL_REVISION: str(function.revision),
                LABEL_OWNER: self._owner,
                LABEL_DATA_DIR: str(self._data_dir),
            },
            "HostConfig": host,
        }

    async def _pull(self, image: str) -> None:
        """Pull an image, once for all who wait for it.

        :raises StartFailedError: It cannot be pulled.
        """
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = asyncio.create_task(self._pull_now(image))
            pull.add_done_callback(self._pulled)
        try:
            await asyncio.shield(pull)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise StartFailedError(
                FailureReason.IMAGE_NOT_FOUND, f"the image {image} is not here and cannot be pulled: {error}"
            ) from error

    def _pulled(self, pull: asyncio.Task[None]) -> None:
        self._pulls = {image: other for image, other in self._pulls.items() if other is not pull}
        if not pull.cancelled() and (error := pull.exception()) is not None:
            _log.warning("image_not_pulled", error=str(error))

    async def _pull_now(self, image: str) -> None:
        assert self._docker is not None
        _log.info("image_pulling", image=image)
        async with asyncio.timeout(self._pull_timeout):
            await self._docker.images.pull(image)

    async def _discard(self, raw: DockerContainer, container: Container | None) -> None:
        if container is not None:
            await container.stop()
            return
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                await raw.delete(force=True, v=True)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            _log.warning("container_not_removed", instance=raw.id, error=str(error))

    async def _sweep(self, is_left: Callable[[str], bool]) -> None:
        """Remove the containers of this data folder whose owners are as described."""
        assert self._docker is not None
        filters = json.dumps({"label": [f"{LABEL_DATA_DIR}={self._data_dir}"]})
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                containers = await self._docker.containers.list(all=True, filters=filters)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            _log.warning("containers_not_listed", error=str(error))
            return
        owners: dict[str, list[DockerContainer]] = {}
        for container in containers:
            owners.setdefault(container["Labels"].get(LABEL_OWNER, ""), []).append(container)
        for owner, left in owners.items():
            if is_left(owner):
                _log.info("orphaned_containers_found", owner=owner, count=len(left))
                await asyncio.gather(*(self._discard(container, None) for container in left))


def _archive(secrets: Mapping[str, bytes]) -> bytes:
    """Return the files of secrets as a tar file: any user of the container may read them, root alone owns them."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, value in secrets.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(value), 0o444
            archive.addfile(entry, io.BytesIO(value))
    return made.getvalue()


def _no_secrets(why: str) -> StartFailedError:
    return StartFailedError(FailureReason.SECRETS_UNAVAILABLE, f"its secrets cannot be laid out: {why}")


def _not_created(error: BaseException) -> StartFailedError:
    return StartFailedError(FailureReason.START_FAILED, f"the container cannot be created: {error}")


def health_path_of(config: Mapping[str, Any]) -> str:
    """Return where a container says whether it is ready, given its configuration; empty where it is not known to."""
    path: str = (config.get("Labels") or {}).get(LABEL_HEALTH_PATH, "")
    if path.startswith("/"):
        return path
    has_watchdog = any(variable.startswith(_WATCHDOG_PROGRAM) for variable in config.get("Env") or ())
    return _WATCHDOG_HEALTH_PATH if has_watchdog else ""


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
