"""An image that was built again under the same name: no revision runs two programs, and force rolls out the new one."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homing import Client
from support.cli import program
from support.docker import LABEL, ROOT, build, docker, remove_by_label
from support.processes import Cluster, Dev
from support.rabbitmq import RabbitNode

PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Installation:
    target: str
    workers: int


@pytest.fixture(params=["dev", "rabbitmq"])
def installation(
    request: pytest.FixtureRequest,
    rabbit_node: RabbitNode,
    tmp_path_factory: pytest.TempPathFactory,
    rebuild: Callable[[str], str],  # its images go once nothing runs them any more
) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("rebuilt")
    if request.param == "dev":
        dev = Dev(folder, HOMING_RUNTIME="docker")
        dev.start()
        yield Installation(target=dev.target, workers=1)
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder, runtime="docker") as cluster:
        cluster.start_server()
        for _ in range(2):
            cluster.start_worker()
        yield Installation(target=cluster.target, workers=2)
    rabbit_node.leave_vhost(url)


@pytest.fixture
def rebuild(base_image: str, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Yield what builds an image that answers with a text, always under the same name, and returns the name."""
    run = secrets.token_hex(4)
    label = f"{LABEL}={run}"
    tag = f"homing-test-rebuilt:{run}"
    folder = tmp_path / "image"
    shutil.copytree(ROOT / "tests" / "support" / "images" / "plain", folder)
    config = (folder / "nginx.conf").read_text()

    def rebuild(answer: str) -> str:
        (folder / "nginx.conf").write_text(config.replace("plain\\n", answer))
        build(folder, base=base_image, tag=tag, label=label)
        return tag

    try:
        yield rebuild
    finally:
        remove_by_label(label)


def image_id(tag: str) -> str:
    return docker("image", "inspect", "--format={{.Id}}", tag)


@pytest.mark.timeout(180)
def test_no_revision_runs_two_programs_and_force_rolls_the_new_one_out(
    installation: Installation, rebuild: Callable[[str], str]
) -> None:
    name = f"rebuilt-{secrets.token_hex(3)}"
    tag = rebuild("old")
    first = image_id(tag)
    with Client(installation.target, timeout=PATIENCE) as client:

        def run() -> tuple[str, int, str]:
            call = client.invoke_async(name)
            text = call.result().text
            (attempt,) = call.describe().attempts
            return text, attempt.function_revision, attempt.image_id

        # One instance at each worker, so that each knows what the name stands for.
        client.functions.deploy(name=name, image=tag, min_instances=1, max_instances=1)
        started = {run()[0] for _ in range(2)}
        assert started == {"old"}
        while len(docker("ps", "--quiet", f"--filter=label=dev.homing.function={name}").split()) < installation.workers:
            assert run() == ("old", 1, first)

        rebuild("new")
        second = image_id(tag)
        assert second != first
        again = client.functions.deploy(name=name, image=tag, min_instances=1, max_instances=1)
        assert again.revision == 1
        client.functions.scale(name, max_instances=3)
        calls = [client.invoke_async(name) for _ in range(12)]
        assert {call.result().text for call in calls} == {"old"}
        assert {attempt.image_id for call in calls for attempt in call.describe().attempts} == {first}

        forced = program("deploy", name, "--force", target=installation.target)
        assert forced.returncode == 0, forced.stderr
        assert b"revision 3" in forced.stdout
        calls = [client.invoke_async(name) for _ in range(12)]
        assert {call.result().text for call in calls} == {"new"}
        assert {
            (attempt.function_revision, attempt.image_id) for call in calls for attempt in call.describe().attempts
        } == {(3, second)}
        shown = program("get", calls[0].id, target=installation.target).stdout.decode()
        assert second.removeprefix("sha256:")[:12] in shown
        assert client.functions.update(name, force=True).revision == 4
        assert client.functions.deploy(name=name, image=tag, force=True).revision == 5
        client.functions.delete(name)
