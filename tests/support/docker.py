"""Docker: building the example functions, and finding and removing what was made."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

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
    ticker: str
    plain: str
    """A web server that answers `POST /` with `plain` and anything else, `/_/health` too, with 404."""
    run: str
    """The value of the label homing.test on these images and so on every container of them."""

    def containers(self, image: str = "", *, all_states: bool = False) -> list[str]:
        """Return the ids of the containers of one of these images, or of all, that run (or exist)."""
        filters = [f"label={LABEL}={self.run}"] + ([f"ancestor={image}"] if image else [])
        args = [word for value in filters for word in ("--filter", value)]
        return docker("ps", "--quiet", "--no-trunc", *(["--all"] if all_states else []), *args).split()


def make_base_image() -> str:
    """Return the tag of the image that others build on, made once a machine; raises DockerError."""
    done = subprocess.run([ROOT / "scripts" / "base-image"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DockerError(f"scripts/base-image failed: {done.stderr.strip()}")
    return done.stdout.strip()


def build_function(name: str, *, base: str, tag: str, label: str) -> None:
    """Build the image of an example function with a label; raises DockerError."""
    folder = ROOT / "examples"
    build(folder, base=base, tag=tag, label=label, dockerfile=folder / name / "Dockerfile")


def build(folder: Path, *, base: str, tag: str, label: str, dockerfile: Path | None = None) -> None:
    """Build an image from a folder with a label; raises DockerError."""
    dockerfile = dockerfile or folder / "Dockerfile"
    options = (f"--build-arg=BASE={base}", f"--label={label}", f"--tag={tag}", f"--file={dockerfile}")
    docker("build", "--quiet", *options, str(folder))


def remove_by_label(label: str) -> None:
    """Remove the images with a label and all containers of them; raises DockerError."""
    if containers := docker("ps", "--all", "--quiet", f"--filter=label={label}").split():
        docker("rm", "--force", "--volumes", *containers)
    if images := docker("images", "--quiet", f"--filter=label={label}").split():
        docker("rmi", "--force", *dict.fromkeys(images))
