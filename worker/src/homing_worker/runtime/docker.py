"""Runs container images through the Docker Engine API."""

from __future__ import annotations

import asyncio
import io
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
from homing_core.reasons import FailureReason
from homing_worker.owner import OwnerLock, is_orphaned
from homing_worker.runtime.base import Instance, Runtime, StartFailedError
from homing_worker.runtime.container import ENGINE_ERRORS, Container
from homing_worker.runtime.container_config import (
    LABEL_DATA_DIR,
    LABEL_OWNER,
    PORT,
    SECRETS,
    ContainerDefaults,
    container_config,
    health_check_of,
)
from homing_worker.runtime.container_log import ContainerLog
from homing_worker.runtime.container_network import ensure_network
from homing_worker.runtime.secret_files import SecretFiles

_log = structlog.get_logger(__name__)

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
        defaults: ContainerDefaults,
        owner: str,
        start_timeout: float,
        pull_timeout: float,
        stop_grace: int,
    ) -> None:
        """Prepare to run containers.

        :param files: Lays out secrets for containers of an engine on this very system.
        :param defaults: What holds for containers whose function or image says nothing else.
        """
        self._url = url
        self._data_dir = data_dir.resolve()
        self._files = files
        self._defaults = defaults
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
                FailureReason.START_FAILED, f"docker_url: the Docker Engine at {self._url} does not answer: {error}"
            ) from error
        _log.info("docker_engine_connected", version=version.get("Version", ""), direct=self._direct)
        gateway = await ensure_network(self._docker, self._defaults.network)
        if self._direct:
            self.host = gateway
        await self._sweep(lambda owner: owner != self._owner and is_orphaned(self._data_dir, owner))

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
        mounts: list[dict[str, Any]] = []
        if folder is not None:
            # Not "Binds", which makes an empty folder where the engine does not see this one.
            mounts = [{"Type": "bind", "Source": str(folder), "Target": SECRETS, "ReadOnly": True}]
        elif secrets:
            mounts = [{"Type": "volume", "Target": SECRETS, "VolumeOptions": {"NoCopy": True}}]
        raw = await self._create(function, mounts, name, image_id)
        container: Container | None = None
        try:
            async with asyncio.timeout(self._start_timeout):
                if secrets and folder is None:
                    await self._put(raw, secrets)
                await raw.start()
                container = await self._attach(raw, function, name, free)
                await container.become_ready()
        except TimeoutError as error:
            why = "" if container is None else f": {container.why_not_ready}{await container.last_lines()}"
            await self._discard(raw, container)
            raise StartFailedError(
                FailureReason.START_FAILED, f"the container was not ready within {self._start_timeout:g} s{why}"
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

    async def _create(
        self, function: Function, mounts: Sequence[Mapping[str, Any]], name: str, image_id: str
    ) -> DockerContainer:
        assert self._docker is not None
        # Whoever cleans up the engine while no container runs removes the network too.
        await ensure_network(self._docker, self._defaults.network)
        reference, image = await self._image(function, image_id)
        config = container_config(
            function,
            reference,
            image,
            self._defaults,
            mounts=mounts,
            publish=not self._direct,
            labels={LABEL_OWNER: self._owner, LABEL_DATA_DIR: str(self._data_dir)},
        )
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                return await self._docker.containers.create(config, name=name)
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise _not_created(error) from error

    async def _image(self, function: Function, image_id: str) -> tuple[str, Mapping[str, Any]]:
        """Return what names the image to run, and its configuration; pull it where it is missing."""
        if image_id:
            found = await self._inspect(image_id)
            if found is not None:
                return image_id, found
            _log.warning("image_removed", function=function.name, image=function.image, image_id=image_id)
        found = await self._inspect(function.image)
        if found is None:
            await self._pull(function.image)
            found = await self._inspect(function.image) or {}
        return function.image, found

    async def _inspect(self, image: str) -> Mapping[str, Any] | None:
        """Return the configuration of an image; None where it is not here."""
        assert self._docker is not None
        try:
            async with asyncio.timeout(_ENGINE_TIMEOUT):
                shown = await self._docker.images.inspect(image)
        except DockerError as error:
            if error.status == _NOT_FOUND:
                return None
            raise _not_created(error) from error
        except (*ENGINE_ERRORS, TimeoutError) as error:
            raise _not_created(error) from error
        config: Mapping[str, Any] = shown.get("Config") or {}
        return config

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
            check=health_check_of(shown["Config"], function),
            probes=self._probes,
            stop_grace=self._stop_grace,
            log=ContainerLog(self._engine, raw.id, turn=self._log_turn, same_clock=self._direct),
            free=free,
        )

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
