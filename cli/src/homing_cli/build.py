"""The commands build and up: images from the folders of a stack file, and functions from these."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from homing_cli import docker, output
from homing_cli.exits import REFUSED
from homing_cli.options import Json, Target, pairs, wants_json
from homing_cli.output import complain
from homing_cli.stack.errors import StackError
from homing_cli.stack.schema import Stack, StackFunction
from homing_cli.stack_deploy import Rollout
from homing_cli.stack_options import BuildArgs, Filter, Regex, StackFile, load_stack


def build(
    ctx: typer.Context,
    *,
    yaml: StackFile = None,
    filter: Filter = None,  # noqa: A002 as the option is
    regex: Regex = None,
    build_arg: BuildArgs = None,
    json: Json = False,
) -> None:
    """Build the images of the functions in a stack file, each from the folder that its handler names.

    The folder has a Dockerfile, as homing new makes one. It is built by the docker command, whose output is shown.

    \b
    Examples:
      homing build
      homing build -f stack.yaml --filter 'report-*'
      homing build --build-arg BASE=python:3.13-slim
    """  # noqa: D301 - click wants the character
    stack = load_stack(yaml, filter=filter, regex=regex)
    _build(stack, pairs("--build-arg", build_arg), json=wants_json(ctx, json=json))


def up(
    ctx: typer.Context,
    *,
    yaml: StackFile = None,
    filter: Filter = None,  # noqa: A002 as the option is
    regex: Regex = None,
    build_arg: BuildArgs = None,
    push: Annotated[
        bool, typer.Option("--push", help="Push the images to their registries before they are deployed.")
    ] = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Build the functions of a stack file and deploy them, rolled out anew also where only their images are new.

    Nothing is pushed without --push: workers that use the same Docker engine have the images, others do not.

    \b
    Examples:
      homing up
      homing up -f stack.yaml --filter hello
      homing up --push --target homing.example.org:50051
    """  # noqa: D301 - click wants the character
    as_json = wants_json(ctx, json=json)
    stack = load_stack(yaml, filter=filter, regex=regex)
    rollout = Rollout.of(ctx, stack, target=target, force=True, json=as_json)
    _build(stack, pairs("--build-arg", build_arg), json=as_json, push=push)
    rollout.run()


def _build(stack: Stack, build_args: Mapping[str, str], *, json: bool, push: bool = False) -> None:
    """Build, and push, what there is to build, one after the other.

    :raises StackError: One has no Dockerfile.
    :raises DockerError: There is no engine to build with.
    :raises typer.Exit: One could not be built, which is told, and the others were.
    """
    wanted = [each for each in stack.functions if each.handler and not each.skip_build]
    for function in stack.functions:
        if function not in wanted:
            complain(f"{function.name} is not built: {'skip_build' if function.skip_build else 'it has no handler'}")
        elif not (Path(function.handler) / "Dockerfile").is_file():
            raise StackError(_no_dockerfile(function))
    if not wanted:
        return
    docker.check_engine()
    failed = [each for each in wanted if not _build_one(each, build_args, json=json, push=push)]
    if failed:
        raise typer.Exit(REFUSED)


def _no_dockerfile(function: StackFunction) -> str:
    told = f"{function.name} cannot be built: there is no {Path(function.handler) / 'Dockerfile'}"
    if function.lang in {"", "dockerfile"}:
        return told
    return f"{told}, and templates such as {function.lang} are faas-cli's to build (skip_build leaves it out here)"


def _build_one(function: StackFunction, build_args: Mapping[str, str], *, json: bool, push: bool) -> bool:
    """Build one; return whether it is done, after telling why where it is not."""
    complain(f"building {function.name}")
    try:
        args = {**function.build_args, **build_args}
        docker.build(function.handler, image=function.image, build_args=args, quiet_stdout=json)
        if push:
            docker.push(function.image, quiet_stdout=json)
    except docker.DockerError as error:
        complain(f"{function.name}: {error}")
        return False
    if json:
        output.print_json({"name": function.name, "image": function.image, "pushed": push})
    else:
        output.print_line(f"{function.name} is built{' and pushed' if push else ''}: image {function.image}")
    return True
