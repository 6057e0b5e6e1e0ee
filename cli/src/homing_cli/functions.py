"""The commands about functions: functions, remove."""

from __future__ import annotations

import shlex
from typing import Annotated, Final

import typer

from homing import Client, Function, InvocationState, PermissionDeniedError
from homing.v1 import DeleteFunctionResponse
from homing_cli import output
from homing_cli.bulk import Yes, confirm
from homing_cli.filters import complete_function
from homing_cli.options import Json, Target, connect, wants_json

_WAITING: Final = (
    InvocationState.SCHEDULED,
    InvocationState.ENQUEUED,
    InvocationState.DEQUEUED,
    InvocationState.RETRYING,
)
"""What ends INVALID when its function is removed."""


def show(
    ctx: typer.Context,
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="The name of a function; by default all.", autocompletion=complete_function
        ),
    ] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Show all functions, or one in full.

    \b
    Examples:
      homing functions
      homing functions figlet
      homing functions --json | jq -r .name
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        if name is not None:
            _show_one(client.functions.get(name), json=wants_json(ctx, json=json))
        elif wants_json(ctx, json=json):
            for function in client.functions.list():
                output.print_json(function.message)
        else:
            _show_all(client)


def remove(
    ctx: typer.Context,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the function.", autocompletion=complete_function)
    ],
    yes: Yes = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Remove a function. Its waiting invocations end INVALID, running ones finish.

    Where some wait, their number is told and confirmed on the terminal first.

    \b
    Examples:
      homing remove figlet
      homing remove figlet --yes
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        if not yes:
            _confirm_removal(client, name)
        invalidated = client.functions.delete(name)
    if wants_json(ctx, json=json):
        output.print_json(DeleteFunctionResponse(invalidated=invalidated))
    else:
        output.print_line(f"{name} is removed; {output.several(invalidated, 'waiting invocation')} ended INVALID")


def _confirm_removal(client: Client, name: str) -> None:
    """Ask whether to go on, where work would be lost by it."""
    try:
        waiting = client.count(function=name, states=_WAITING)
    except PermissionDeniedError:  # a key may be for deploying and not for reading
        confirm(f"Invocations of {name} may wait, which would end INVALID. Remove it?")
        return
    if waiting.total:
        number = output.several(waiting.total, "or more waiting invocation" if waiting.more else "waiting invocation")
        confirm(f"{number} of {name} will end INVALID. Remove it?")


def source_of(function: Function) -> str:
    """Return what a function runs, in words."""
    if function.command is not None:
        return f"command {shlex.join(function.command)}"
    if function.http_command is not None:
        return f"http command {shlex.join(function.http_command)}"
    return f"image {function.image}" if function.image is not None else f"url {function.url}"


def _show_all(client: Client) -> None:
    output.table(
        ("NAME", "SOURCE", "CONCURRENCY", "INSTANCES", "REVISION", "CHANGED", "STATE"),
        (
            (
                function.name,
                source_of(function),
                str(function.concurrency or 1),
                f"{function.min_instances} to {function.max_instances or 4}",
                str(function.revision),
                output.moment(function.update_time),
                "PAUSED" if function.paused else "",
            )
            for function in client.functions.list()
        ),
    )


def _show_one(function: Function, *, json: bool) -> None:
    if json:
        output.print_json(function.message)
        return
    policy, limits = function.retry_policy, function.limits
    attempts = policy.max_attempts if policy is not None else None
    output.fields(
        (
            ("name", function.name),
            ("state", "PAUSED" if function.paused else ""),
            ("source", source_of(function)),
            ("environment", output.pairs(function.env)),
            ("secrets", " ".join(function.secrets)),
            ("labels", output.pairs(function.labels)),
            ("annotations", output.pairs(function.annotations)),
            ("memory", f"{limits.memory_bytes} bytes" if limits.memory_bytes else ""),
            ("cpu", f"{limits.cpu_millis / 1000:g} cores" if limits.cpu_millis else ""),
            ("pids", str(limits.pids or "")),
            ("concurrency", str(function.concurrency or 1)),
            ("instances", f"{function.min_instances} to {function.max_instances or 4} on each worker"),
            ("idle time-out", output.span(function.idle_timeout)),
            ("attempt time-out", output.span(function.attempt_timeout)),
            ("max age", output.span(function.max_age)),
            ("retention", output.span(function.retention)),
            ("attempts", str(attempts or "")),
            ("records", "" if function.record_sync else "asynchronous invocations only"),
            ("on success", " ".join(function.on_success)),
            ("on failure", " ".join(function.on_failure)),
            ("public", "invoked without a key" if function.public else ""),
            ("revision", str(function.revision)),
            ("created", output.moment(function.create_time)),
            ("changed", output.moment(function.update_time)),
        )
    )
