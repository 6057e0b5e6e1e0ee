"""Functions from a stack file, in containers: made, built, deployed, invoked, changed and rolled out."""

from __future__ import annotations

import importlib.metadata
import secrets
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import homing_function
from homing import Client
from support.cli import objects, program
from support.docker import LABEL, ROOT, FunctionImages, build, remove_by_label
from support.processes import Dev

PATIENCE = 60.0


@pytest.fixture(scope="module")
def run() -> Iterator[str]:
    """Yield what is in the names of what these tests make; the images go at the end."""
    run = secrets.token_hex(4)
    try:
        yield run
    finally:
        remove_by_label(f"{LABEL}={run}")


@pytest.fixture(scope="module")
def dev(run: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Yield a homing dev that runs containers."""
    dev = Dev(tmp_path_factory.mktemp("dev"), HOMING_RUNTIME="docker")
    dev.start()
    yield dev
    assert dev.terminate() == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ours(dev: Dev, *arguments: str) -> bytes:
    """Run the command, which must succeed, and return what it printed."""
    done = program(*arguments, target=dev.target)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.timeout(180)
def test_a_program_is_a_function_in_three_commands(
    dev: Dev, run: str, base_image: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")  # BuildKit needs a plugin that Debian has not
    watchdog = watchdog_image(base_image, run, folder)
    name = f"shout-{run}"
    build_args = ("--build-arg", f"BASE={base_image}", "--build-arg", f"WATCHDOG={watchdog}")

    ours(dev, "new", name, "--lang", "dockerfile", "--prefix", "homing-test")
    dockerfile = folder / name / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + f"LABEL {LABEL}={run}\n")
    built = ours(dev, "build", *build_args).decode()
    assert f"{name} is built: image homing-test/{name}:latest\n" in built
    assert b"revision 1" in ours(dev, "up", *build_args)
    assert ours(dev, "invoke", name, "quiet") == b"quiet"

    dockerfile.write_text(dockerfile.read_text().replace('fprocess="cat"', 'fprocess="tr a-z A-Z"'))
    (deployed,) = [each for each in objects(ours(dev, "up", "--json", *build_args).decode()) if "revision" in each]
    assert deployed["revision"] == "2"
    assert ours(dev, "invoke", name, "loud") == b"LOUD"
    ours(dev, "remove", name, "--yes")


@pytest.mark.timeout(180)
def test_a_function_in_python_is_one_in_two_commands(dev: Dev, run: str, base_image: str, folder: Path) -> None:
    base = python_image(base_image, run, folder)
    name = f"hello-{run}"

    ours(dev, "new", name, "--lang", "python", "--prefix", "homing-test")
    ours(dev, "up", "--build-arg", f"BASE={base}")
    assert ours(dev, "invoke", name, "world") == b"Hello world, this is attempt 1\n"

    handler = folder / name / "handler.py"
    handler.write_text(handler.read_text().replace("Hello", "Goodbye"))
    ours(dev, "up", "--build-arg", f"BASE={base}")
    assert ours(dev, "invoke", name) == b"Goodbye you, this is attempt 1\n"
    ours(dev, "remove", name, "--yes")


def python_image(base: str, run: str, folder: Path) -> str:
    """Return an image with pip and homing-function, so that nothing is fetched."""
    place = folder / "python"
    wanted, found = ["pip", "homing-function"], set[str]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            distribution = importlib.metadata.distribution(name)
            wanted += [Requirement(each).name for each in distribution.requires or () if "extra ==" not in each]
            copy(distribution, place / "site")
    shutil.copytree(Path(homing_function.__file__).parent, place / "site" / "homing_function", dirs_exist_ok=True)
    (place / "Dockerfile").write_text(
        "ARG BASE\nFROM $BASE\nCOPY site /site\nENV PYTHONPATH=/site PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_INDEX=1\n"
    )
    tag = f"homing-test-python:{run}"
    build(place, base=base, tag=tag, label=f"{LABEL}={run}")
    return tag


def copy(distribution: importlib.metadata.Distribution, folder: Path) -> None:
    """Copy what is installed of a distribution; of one that is editable that is what pip knows it by."""
    for file in distribution.files or ():
        if not {"..", "__pycache__"} & set(file.parts):
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(distribution.locate_file(file)), target)


def watchdog_image(base: str, run: str, folder: Path) -> str:
    """Return an image with `/fwatchdog`, as that of the classic watchdog has it."""
    place = folder / "watchdog"
    place.mkdir()
    script = (ROOT / "examples" / "watchdog" / "watchdog.py").read_text()
    (place / "fwatchdog").write_text(f"#!/usr/bin/env python3\n{script}")
    (place / "fwatchdog").chmod(0o755)
    (place / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nCOPY fwatchdog /fwatchdog\n")
    tag = f"homing-test-watchdog:{run}"
    build(place, base=base, tag=tag, label=f"{LABEL}={run}")
    return tag


@pytest.mark.timeout(180)
def test_several_functions_of_a_file_are_deployed_as_it_says(
    dev: Dev, run: str, function_images: FunctionImages, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "loud.yml").write_text("environment: {fprocess: tr a-z A-Z}\n")
    (folder / "stack.yaml").write_text(
        f"""
        version: 1.0
        provider: {{name: openfaas, gateway: "http://127.0.0.1:8080"}}
        functions:
          figlet:
            image: ${{FIGLET:-nowhere}}
            limits: {{memory: 128Mi, cpu: 500m}}
            labels: {{team: red, com.openfaas.scale.max: 7}}
            annotations: {{note: as it is, com.openfaas.retry.attempts: 5, dev.homing.attempt-timeout: 10m}}
          count:
            image: {function_images.long_task}
            fprocess: wc -c
          loud:
            image: {function_images.long_task}
            environment_file: [loud.yml]
            secrets: [missing]
          shout:
            image: {function_images.long_task}
            environment_file: [loud.yml]
        """
    )
    monkeypatch.setenv("FIGLET", function_images.figlet)

    done = program("deploy", "-f", "stack.yaml", target=dev.target)

    assert done.returncode == 2
    assert [line.split()[0] for line in done.stdout.splitlines()] == [b"figlet", b"count", b"shout"]
    assert done.stderr.startswith(b"homing: loud: ")
    assert b"missing" in done.stderr
    with Client(dev.target, timeout=PATIENCE) as client:
        figlet = client.functions.get("figlet")
        assert (figlet.limits.memory_bytes, figlet.limits.cpu_millis) == (128 * 2**20, 500)
        assert figlet.annotations["note"] == "as it is"
        assert (figlet.max_instances, figlet.attempt_timeout) == (7, timedelta(minutes=10))
        assert figlet.retry_policy is not None
        assert figlet.retry_policy.max_attempts == 5
        calls = [client.invoke_async(name, "four") for name in ("count", "shout")]
        assert [call.result().text.strip() for call in calls] == ["4", "FOUR"]
        # The file is the whole of a function: what another deployment said besides is gone.
        client.functions.update("figlet", max_instances=9, concurrency=3, labels={"other": "x"})
        ours(dev, "deploy", "--filter", "fig*")
        again = client.functions.get("figlet")
        assert (again.labels, again.max_instances, again.concurrency) == (figlet.labels, 7, figlet.concurrency)
