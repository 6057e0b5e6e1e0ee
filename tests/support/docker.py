"""Container images for tests: the example functions, and one that knows nothing of functions."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LABEL = "homing.test"


class DockerError(Exception):
    """A docker command failed; carries what it said."""


def docker(*args: str) -> str:
    """Run a docker command and return its output; raises DockerError."""
    # The classic builder is in every version of Docker; BuildKit needs a plugin that Debian has not.
    environment = os.environ | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *args], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise DockerError(f"docker {' '.join(args)} failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionImages:
    """Tags of images that answer HTTP on port 8080, made for this run of the tests."""

    figlet: str
    long_task: str
    flaky: str
    plain: str
    """A web server that answers `POST /` with `plain` and anything else, `/_/health` too, with 404."""
    run: str
    """The value of the label homing.test on these images and so on every container of them."""

    def containers(self, image: str = "", *, all_states: bool = False) -> list[str]:
        """Return the ids of the containers of one of these images, or of all, that run (or exist)."""
        filters = [f"label={LABEL}={self.run}"] + ([f"ancestor={image}"] if image else [])
        args = [word for value in filters for word in ("--filter", value)]
        return docker("ps", "--quiet", "--no-trunc", *(["--all"] if all_states else []), *args).split()


@pytest.fixture(scope="session")
def base_image() -> str:
    """Return the tag of the image that others build on; it is made once a machine."""
    if shutil.which("docker") is None:
        pytest.fail("docker is not installed; `make test` installs it on Debian")
    try:
        docker("version")
    except DockerError as error:
        pytest.fail(f"no Docker engine answers; `make test` starts one on Debian: {error}")
    done = subprocess.run([ROOT / "scripts" / "base-image"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        pytest.fail("scripts/base-image failed, see its output")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def function_images(base_image: str) -> Iterator[FunctionImages]:
    """Build the images, and remove them and all containers of them at the end."""
    run = secrets.token_hex(4)
    functions = ROOT / "functions"
    contexts = {
        "figlet": ("-f", str(functions / "figlet" / "Dockerfile"), str(functions)),
        "long-task": ("-f", str(functions / "long-task" / "Dockerfile"), str(functions)),
        "flaky": ("-f", str(functions / "flaky" / "Dockerfile"), str(functions)),
        "plain": (str(ROOT / "tests" / "support" / "images" / "plain"),),
    }
    tags = {name: f"homing-test-{name}:{run}" for name in contexts}
    images = FunctionImages(
        figlet=tags["figlet"], long_task=tags["long-task"], flaky=tags["flaky"], plain=tags["plain"], run=run
    )
    try:
        for name, context in contexts.items():
            docker(
                "build", "--quiet", f"--build-arg=BASE={base_image}", f"--label={LABEL}={run}", f"--tag={tags[name]}",
                *context,
            )  # fmt: skip
        yield images
    finally:
        if left := images.containers(all_states=True):
            docker("rm", "--force", "--volumes", *left)
        for tag in tags.values():
            if docker("images", "--quiet", tag):
                docker("rmi", "--force", tag)
