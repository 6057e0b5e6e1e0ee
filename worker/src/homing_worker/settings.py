"""The settings of the worker."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from homing_core.limits import MAX_DELAY, MIB, MIN_MEMORY
from homing_core.settings import CommonSettings, check_listen, parts_of
from homing_core.tls import TlsFiles
from homing_worker.deliveries.schedule import DEFAULT_DELAYS, Schedule
from homing_worker.runtime.container_config import ContainerDefaults

RUNTIMES = ("docker", "process")
_DOCKER_URL = re.compile(r"unix://(/.+)|https?://[^/\s]+/?")


def _check_runtimes(value: str) -> str:
    unknown = [name for name in parts_of(value) if name not in RUNTIMES]
    if unknown or not parts_of(value):
        raise ValueError(f"must be a comma-separated list of {', '.join(RUNTIMES)}")
    return value


def _check_delays(value: str) -> str:
    for part in parts_of(value):
        try:
            good = 0 <= float(part) <= MAX_DELAY
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"must be seconds from 0 to {MAX_DELAY:.12g}, comma-separated, as in 5,30,120")
    return value


def _check_listen(value: str) -> str:
    return check_listen(value) if value else value


def _check_docker_url(value: str) -> str:
    if not _DOCKER_URL.fullmatch(value):
        raise ValueError("must be unix://PATH or http://HOST:PORT, as in unix:///var/run/docker.sock")
    return value


def _check_memory(value: int) -> int:
    if value and value < MIN_MEMORY:
        raise ValueError(f"must be 0 or at least {MIN_MEMORY}")
    return value


def _check_user(value: str) -> str:
    if not re.fullmatch(r"(\d{1,10}(:\d{1,10})?)?", value):
        raise ValueError("must be UID or UID:GID, as in 65534:65534, or empty")
    return value


def _check_users(value: str) -> str:
    first, _, last = value.partition("-")
    if value and not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 2**31):
        raise ValueError("must be FIRST-LAST, as in 61184-65519, or empty")
    return value


def _check_url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment):
        raise ValueError("must be a URL without a query, as in http://worker-1:9000")
    return value


class WorkerSettings(CommonSettings):
    """homing-worker runs functions for homing servers that use the same RabbitMQ.

    Settings are read from environment variables that start with HOMING_, or given as options.
    """

    model_config = SettingsConfigDict(cli_prog_name="homing-worker")

    runtime: Annotated[str, AfterValidator(_check_runtimes)] = Field(
        default="docker",
        description="What runs functions, comma-separated: docker (container images), process (commands on this host)."
        " Functions that are URLs need nothing.",
    )
    worker_name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=100,
        description="The name of this worker in records and logs; a random part is added, so that it is unique.",
    )
    docker_url: Annotated[str, AfterValidator(_check_docker_url)] = Field(
        default="unix:///var/run/docker.sock",
        description="Where the Docker Engine API answers: unix://PATH or http://HOST:PORT.",
    )
    container_network: str = Field(
        default="homing",
        min_length=1,
        description="The network of the Docker Engine that containers are in; made where it is missing, so that none of"
        " them reaches another.",
    )
    container_memory: Annotated[int, AfterValidator(_check_memory)] = Field(
        default=512 * MIB,
        description="Bytes of memory that a container may use whose function sets no limit; 0 for no limit.",
    )
    container_pids: int = Field(
        default=512,
        ge=0,
        le=1_000_000,
        description="Processes and threads that a container may have whose function sets no limit; 0 for no limit.",
    )
    container_user: Annotated[str, AfterValidator(_check_user)] = Field(
        default="65534:65534",
        description="UID or UID:GID of containers whose image names no user; empty: root, without its rights.",
    )
    command_users: Annotated[str, AfterValidator(_check_users)] = Field(
        default="61184-65519",
        description="Where the worker is root: UIDs for commands, one for each place for calls, as FIRST-LAST; empty:"
        " they run as root too. Where it is not root they run as its user.",
    )
    start_timeout: float = Field(
        default=60.0, gt=0, description="Seconds that an instance has to become ready, pulling its image not counted."
    )
    pull_timeout: float = Field(default=600.0, gt=0, description="Seconds that pulling an image may take.")
    stop_grace: int = Field(
        default=3, ge=0, description="Seconds between SIGTERM and SIGKILL when an instance is stopped."
    )
    drain_timeout: float = Field(
        default=60.0, ge=0, description="Seconds that running invocations have to end when the worker is stopped."
    )
    lease_after: float = Field(
        default=300.0,
        gt=0,
        description="Seconds after which work that runs leaves the broker, so that this worker answers for it, and"
        " work that waits here goes back to the store. Must be well under RabbitMQ's consumer_timeout (30 min).",
    )
    lease_term: float = Field(
        default=60.0,
        ge=1,
        description="Seconds that a lease lasts unless it is renewed: a worker that is silent for so long is lost.",
    )
    delivery_delays: Annotated[str, AfterValidator(_check_delays)] = Field(
        default=",".join(f"{delay:g}" for delay in DEFAULT_DELAYS),
        description="Seconds after each failed attempt to deliver to a callback or destination, comma-separated; after"
        " one attempt more than there are delays it is given up.",
    )
    progress_listen: Annotated[str, AfterValidator(_check_listen)] = Field(
        default="",
        description="HOST:PORT where functions say how far they are; empty: a free port of 127.0.0.1 for commands and"
        " URLs, and of the gateway of the containers' network.",
    )
    progress_url: Annotated[str, AfterValidator(_check_url)] = Field(
        default="",
        description="What functions are given instead of http:// and that address, as in http://worker-1:9000.",
    )
    tls_ca: Path | None = Field(
        default=None,
        description="A PEM file with the certificates to trust where large bodies are moved by https://; by default"
        " those of the system.",
    )
    tls_cert: Path | None = Field(
        default=None, description="A PEM file with the certificate to show there, where servers want one."
    )
    tls_key: Path | None = Field(default=None, description="A PEM file with the key of tls_cert.")
    metrics_listen: Annotated[str, AfterValidator(_check_listen)] = Field(
        default="", description="HOST:PORT to serve Prometheus metrics at; empty: they are not served."
    )

    @property
    def container_defaults(self) -> ContainerDefaults:
        """What holds for containers whose function or image says nothing else."""
        return ContainerDefaults(
            network=self.container_network,
            memory_bytes=self.container_memory,
            pids=self.container_pids,
            user=self.container_user,
        )

    @property
    def command_uids(self) -> range:
        """The users that commands run as; none for the worker's own."""
        first, _, last = self.command_users.partition("-")
        return range(int(first), int(last) + 1) if first else range(0)

    @property
    def schedule(self) -> Schedule:
        """When deliveries are made again."""
        return Schedule(delays=[float(part) for part in parts_of(self.delivery_delays)])

    @property
    def server_tls(self) -> ssl.SSLContext:
        """How servers are checked where large bodies are moved by https://.

        :raises TlsError: A file cannot be used.
        """
        return TlsFiles(prefix="HOMING_TLS", ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key).client_context()

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The names of the runtimes to use."""
        return parts_of(self.runtime)
