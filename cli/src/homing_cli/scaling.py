"""The commands that hold functions and change how many instances they have."""

from __future__ import annotations

from typing import Annotated

import typer

from homing import Function
from homing_cli import output
from homing_cli.filters import complete_function
from homing_cli.options import Json, Target, connect, wants_json

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the function.", autocompletion=complete_function)
]


def pause(ctx: typer.Context, *, name: Name, target: Target = None, json: Json = False) -> None:
    """Hold a function's invocations. They are still accepted, and none starts; what runs finishes.

    \b
    Example:
      homing pause figlet
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        function = client.functions.pause(name)
    _tell(function, f"{function.name} is paused: its invocations are held", as_json=wants_json(ctx, json=json))


def resume(ctx: typer.Context, *, name: Name, target: Target = None, json: Json = False) -> None:
    """Let the invocations of a paused function go on.

    \b
    Example:
      homing resume figlet
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        function = client.functions.resume(name)
    _tell(function, f"{function.name} goes on", as_json=wants_json(ctx, json=json))


def scale(
    ctx: typer.Context,
    *,
    name: Name,
    min_instances: Annotated[
        int | None, typer.Option("--min", help="Instances that each worker keeps at least; by default unchanged.")
    ] = None,
    max_instances: Annotated[
        int | None, typer.Option("--max", help="Instances that each worker starts at most; by default unchanged.")
    ] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Change how many instances of a function each worker keeps and starts.

    \b
    Examples:
      homing scale figlet --max 8
      homing scale figlet --min 1 --max 8
    """  # noqa: D301 - click wants the character
    if min_instances is None and max_instances is None:
        raise typer.BadParameter("give at least one of them", param_hint="--min, --max")
    with connect(ctx, target) as client:
        function = client.functions.scale(name, min_instances=min_instances, max_instances=max_instances)
    bounds = f"{function.min_instances} to {function.max_instances or 4}"
    _tell(function, f"{function.name} has {bounds} instances on each worker", as_json=wants_json(ctx, json=json))


def _tell(function: Function, text: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(function.message)
    else:
        output.print_line(text)
