"""The homings that are measured: on RabbitMQ with containers, and `homing dev` with functions called by URL."""

from __future__ import annotations

import contextlib
import re
import secrets
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from homing import Client
from support.docker import build, docker, make_base_image, remove_by_label
from support.gauges import Gauges
from support.processes import Cluster, Dev, Server
from support.rabbitmq import RabbitNode

FUNCTION = "nop"
CONCURRENCY = 32

_FOLDER = Path(__file__).resolve().parents[1]


class System(ABC):
    """A homing that runs, with a function that does nothing and nobody yet to run it."""

    name: str
    server: Server

    @property
    @abstractmethod
    def roles(self) -> Mapping[str, Sequence[int]]:
        """The processes by the roles that they play."""

    @abstractmethod
    def begin(self) -> None:
        """Let somebody run what is invoked."""

    @abstractmethod
    def close(self) -> None:
        """Stop it."""

    def gauges(self) -> Gauges:
        """Return what the server measures."""
        return Gauges.read(self.server)


class RabbitSystem(System):
    """A server and a worker on RabbitMQ, the function in a container."""

    name = "homing, RabbitMQ + docker"

    def __init__(self, node: RabbitNode, folder: Path, function: Function) -> None:
        self._node = node
        self._function = function
        self._cluster = Cluster(node.new_vhost(), folder, runtime="docker")
        self.server = self._cluster.start_server()
        self._cluster.client().functions.deploy(
            name=FUNCTION, image=function.image, concurrency=CONCURRENCY, max_instances=1
        )

    @property
    def roles(self) -> Mapping[str, Sequence[int]]:
        """The processes by the roles that they play."""
        return {
            "server": [self.server.pid],
            "worker": [worker.pid for worker in self._cluster.workers],
            "rabbitmq": [self._node.pid],
            "function": self._function.pids(but=self._function.container),
        }

    def begin(self) -> None:
        """Start the worker."""
        self._cluster.start_worker()

    def close(self) -> None:
        """Stop server and worker."""
        self._cluster.close()


class DevSystem(System):
    """`homing dev`: all in one process, the function called by its URL."""

    name = "homing dev, embedded + url"

    def __init__(self, folder: Path, function: Function) -> None:
        self._function = function
        # It calls functions on loopback; elsewhere, where it is told to.
        self.server = Dev(folder, HOMING_FUNCTION_NETWORKS=f"{function.address}/32")
        self.server.start()
        self._client = Client(self.server.target)
        # An image is what this one cannot run: so nobody takes what is invoked.
        self._client.functions.deploy(name=FUNCTION, image="none")

    @property
    def roles(self) -> Mapping[str, Sequence[int]]:
        """The processes by the roles that they play."""
        return {"server": [self.server.pid], "function": self._function.pids()}

    def begin(self) -> None:
        """Tell where the function runs."""
        self._client.functions.deploy(name=FUNCTION, url=self._function.url, concurrency=CONCURRENCY, max_instances=1)

    def close(self) -> None:
        """Stop it."""
        self._client.close()
        self.server.terminate()


class Function:
    """The image of a function that does nothing, and a container of it for those who do not start their own."""

    def __init__(self, image: str) -> None:
        self.image = image
        options = ("--detach", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
        self.container = docker("run", *options, image)
        self.address = docker("inspect", "--format={{.NetworkSettings.IPAddress}}", self.container)
        self.url = f"http://{self.address}:8080/"

    def requests(self) -> int:
        """Return how many requests the container answered, those of this method among them."""
        with urllib.request.urlopen(f"{self.url}_/requests", timeout=10) as answer:  # noqa: S310 it is our own
            numbers = re.search(r"requests\s+\d+ \d+ (\d+)", answer.read().decode())
        assert numbers is not None, "nginx tells its status"
        return int(numbers[1])

    def pids(self, *, but: str = "") -> list[int]:
        """Return the first processes of all containers of the image, those of one left out."""
        containers = docker("ps", "--quiet", "--no-trunc", f"--filter=ancestor={self.image}").split()
        return [int(docker("inspect", "--format={{.State.Pid}}", each)) for each in containers if each != but]


@contextlib.contextmanager
def function() -> Iterator[Function]:
    """Build the function and start a container of it; remove both in the end."""
    tag = secrets.token_hex(4)
    label = f"homing.bench={tag}"
    image = f"homing-bench-nop:{tag}"
    try:
        build(_FOLDER / "function", base=make_base_image(), tag=image, label=label)
        yield Function(image)
    finally:
        remove_by_label(label)
