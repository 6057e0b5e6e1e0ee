"""The fixtures of RabbitMQ, of function images and of clusters of real processes."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support.docker import (
    LABEL,
    ROOT,
    DockerError,
    FunctionImages,
    build,
    build_function,
    docker,
    make_base_image,
    remove_by_label,
)
from support.processes import Cluster
from support.rabbitmq import RabbitNode

CALL_REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitNode]:
    """Yield a node that runs; a test that stops it starts it again."""
    with RabbitNode(Path(tempfile.mkdtemp(prefix="homing-rabbitmq-"))) as node:
        yield node


@pytest.fixture
def broker_url(rabbit_node: RabbitNode) -> Iterator[str]:
    """Yield the URL of a virtual host that is new and goes with the test."""
    url = rabbit_node.new_vhost()
    yield url
    if not rabbit_node.running:
        rabbit_node.start()
    rabbit_node.leave_vhost(url)


@pytest.fixture(scope="session")
def base_image() -> str:
    """Return the tag of the image that others build on; it is made once a machine."""
    if shutil.which("docker") is None:
        pytest.fail("docker is not installed; `make test` installs it on Debian")
    try:
        docker("version")
    except DockerError as error:
        pytest.fail(f"no Docker engine answers; `make test` starts one on Debian: {error}")
    return make_base_image()


@pytest.fixture(scope="session")
def function_images(base_image: str) -> Iterator[FunctionImages]:
    """Build the images, and remove them and all containers of them at the end."""
    run = secrets.token_hex(4)
    label = f"{LABEL}={run}"
    tags = {name: f"homing-test-{name}:{run}" for name in ("figlet", "long-task", "flaky", "ticker", "plain")}
    try:
        for name in ("figlet", "long-task", "flaky", "ticker"):
            build_function(name, base=base_image, tag=tags[name], label=label)
        build(ROOT / "tests" / "support" / "images" / "plain", base=base_image, tag=tags["plain"], label=label)
        yield FunctionImages(
            figlet=tags["figlet"],
            long_task=tags["long-task"],
            flaky=tags["flaky"],
            ticker=tags["ticker"],
            plain=tags["plain"],
            run=run,
        )
    finally:
        remove_by_label(label)


@pytest.fixture(scope="session")
def odd_image(base_image: str) -> Iterator[str]:
    """Yield the tag of an image that answers `POST /` with the body, and misbehaves at paths that say how."""
    run = secrets.token_hex(4)
    tag, label = f"homing-test-odd:{run}", f"{LABEL}={run}"
    try:
        build(ROOT / "tests" / "support" / "images" / "odd", base=base_image, tag=tag, label=label)
        yield tag
    finally:
        remove_by_label(label)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the report of the test itself for the fixtures that end after it; add the logs of those that do not."""
    report = yield
    if report.when == "call":
        item.stash[CALL_REPORT] = report
        shared = item.funcargs.get("shared_cluster") if isinstance(item, pytest.Function) else None
        if report.failed and isinstance(shared, Cluster):
            report.sections.append(("the shared cluster", shared.logs()))
    return report


@contextlib.contextmanager
def running_cluster(request: pytest.FixtureRequest, made: Cluster) -> Iterator[Cluster]:
    """Yield the cluster, stop it at the end, and show its logs where the test failed."""
    try:
        with made:
            yield made
    finally:
        report = request.node.stash.get(CALL_REPORT, None)
        if report is not None and report.failed:
            sys.stderr.write(made.logs() + "\n")


@pytest.fixture
def cluster(broker_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Yield a cluster whose workers run functions as processes; nothing is started yet."""
    with running_cluster(request, Cluster(broker_url, tmp_path)) as made:
        yield made


@pytest.fixture(scope="module")
def shared_cluster(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a server with a worker that runs functions as processes, for all tests of a module: none may break them."""
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("shared")) as made:
        made.start_server()
        made.start_worker()
        yield made
    rabbit_node.leave_vhost(url)


@pytest.fixture
def docker_cluster(
    broker_url: str, tmp_path: Path, request: pytest.FixtureRequest, function_images: FunctionImages
) -> Iterator[Cluster]:
    """Yield a cluster whose workers run functions as containers; nothing is started yet."""
    with running_cluster(request, Cluster(broker_url, tmp_path, runtime="docker")) as made:
        yield made
