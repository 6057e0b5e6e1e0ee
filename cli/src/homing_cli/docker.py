"""The docker command, which builds and pushes images.

The command and not the engine's API: it knows the user's contexts, builders, ignore files and the keys of registries.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

_TIMEOUT: Final = 30.0
"""So many seconds an engine has to answer at all."""


class DockerError(Exception):
    """The docker command failed. One line."""


def check_engine() -> None:
    """See to it that there is an engine to build with.

    :raises DockerError: There is none, or no docker command.
    """
    if shutil.which("docker") is None:
        raise DockerError("the docker command is not installed, which builds and pushes images")
    asked = ["docker", "version", "--format={{.Server.Version}}"]
    try:
        done = subprocess.run(  # noqa: S603 nothing in it is from elsewhere
            asked, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise DockerError(f"no Docker engine answers within {_TIMEOUT:g} s") from None
    except OSError as error:
        raise DockerError(f"the docker command cannot be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"docker version ended with status {done.returncode}"]
        raise DockerError(f"no Docker engine answers: {said[-1]}")


def build(folder: str, *, image: str, build_args: Mapping[str, str], quiet_stdout: bool) -> None:
    """Build the image of a folder with a Dockerfile, and let its output be seen.

    :param quiet_stdout: Whether standard output is for something else, so that all of it comes on standard error.
    :raises DockerError: It failed.
    """
    arguments = [f"--build-arg={name}={value}" for name, value in build_args.items()]
    _run(["build", f"--tag={image}", *arguments, "--", folder], quiet_stdout=quiet_stdout)


def push(image: str, *, quiet_stdout: bool) -> None:
    """Push an image to its registry, and let the output be seen.

    :raises DockerError: It failed.
    """
    _run(["push", "--", image], quiet_stdout=quiet_stdout)


def _run(arguments: list[str], *, quiet_stdout: bool) -> None:
    sys.stdout.flush()
    try:
        done = subprocess.run(  # noqa: S603 no shell is involved
            ["docker", *arguments],  # noqa: S607 whichever is the user's
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if quiet_stdout else None,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise DockerError(f"docker {arguments[0]} cannot be run: {error}") from None
    if done.returncode:
        raise DockerError(f"docker {arguments[0]} ended with status {done.returncode}")
