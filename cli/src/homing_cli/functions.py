"""The commands about functions: deploy, functions, remove."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from homing import Client, Function, Limits, RetryPolicy
from homing.v1 import DeleteFunctionResponse
from homing_cli import output
from homing_cli.filters import complete_function
from homing_cli.options import (
    Json,
    Labels,
    OnFailure,
    OnSuccess,
    Target,
    connect,
    cpu,
    duration,
    memory,
    pairs,
    wants_json,
)


def deploy(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the function.")],
    program: Annotated[
        list[str] | None,
        typer.Argument(metavar="[--] [PROGRAM...]", help="A program to run once a call, with its arguments."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="A container image that answers HTTP on port 8080.")] = None,
    command: Annotated[
        str | None, typer.Option(help="A program to run once a call, as one text; no shell is involved.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where the function already runs.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="KEY=VALUE", help="An environment variable; may be repeated."),
    ] = None,
    label: Labels = None,
    annotation: Annotated[
        list[str] | None, typer.Option("--annotation", metavar="KEY=VALUE", help="For tools; may be repeated.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="NAME", help="A secret that its instances see as a file; may be repeated."),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option("--memory", parser=memory, metavar="SIZE", help="Memory of an instance, for example 64Mi."),
    ] = None,
    cpu_limit: Annotated[
        int | None, typer.Option("--cpu", parser=cpu, metavar="CORES", help="Cores of an instance: 0.5 or 500m.")
    ] = None,
    pids: Annotated[int | None, typer.Option(help="Processes and threads of an instance.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Invocations that an instance runs at a time; 1.")] = None,
    min_instances: Annotated[int | None, typer.Option(help="Instances that each worker keeps at least; 0.")] = None,
    max_instances: Annotated[int | None, typer.Option(help="Instances that each worker starts at most; 4.")] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="How long an instance idles; 5m.")
    ] = None,
    attempt_timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="How long an attempt may run; 5m.")
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="DURATION", help="How long an invocation may wait to start; 24h."),
    ] = None,
    retention: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="How long ended records are kept; 7d.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts in all; 3. 1 means no retry.")] = None,
    initial_backoff: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="Bound of the first delay; 1s.")
    ] = None,
    max_backoff: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="Largest bound of a delay; 5m.")
    ] = None,
    record_sync: Annotated[
        bool | None, typer.Option("--record-sync/--no-record-sync", help="Whether synchronous calls leave records.")
    ] = None,
    on_success: OnSuccess = None,
    on_failure: OnFailure = None,
    public: Annotated[bool, typer.Option(help="Whether it may be invoked without an API key.")] = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Create a function or, where the name exists, change it as a whole.

    \b
    Examples:
      homing deploy figlet --image figlet:1 --max-instances 2
      homing deploy upper -- tr a-z A-Z
      homing deploy mailer --image mailer:1 --secret smtp-password
      homing deploy scan --image scan:1 --on-success function:resize --on-failure amqp:failures/scan
      homing deploy legacy --url http://10.0.0.7:8080/run --attempt-timeout 30s
    """  # noqa: D301 - click wants the character
    if program and command is not None:
        raise typer.BadParameter("the program is given twice", param_hint="--command")
    policy = None
    if not (max_attempts is None and initial_backoff is None and max_backoff is None):
        policy = RetryPolicy(max_attempts=max_attempts, initial_backoff=initial_backoff, max_backoff=max_backoff)
    limits = None
    if not (memory_limit is None and cpu_limit is None and pids is None):
        limits = Limits(memory_bytes=memory_limit or 0, cpu_millis=cpu_limit or 0, pids=pids or 0)
    with connect(ctx, target) as client:
        function = client.functions.deploy(
            name=name,
            image=image,
            command=program or (None if command is None else _words(command)),
            url=url,
            env=pairs("--env", env),
            labels=pairs("--label", label),
            annotations=pairs("--annotation", annotation),
            secrets=secret,
            limits=limits,
            concurrency=concurrency,
            min_instances=min_instances,
            max_instances=max_instances,
            idle_timeout=idle_timeout,
            attempt_timeout=attempt_timeout,
            max_age=max_age,
            retention=retention,
            retry_policy=policy,
            record_sync=record_sync,
            on_success=on_success,
            on_failure=on_failure,
            public=public,
        )
    if wants_json(ctx, json=json):
        output.print_json(function.message)
    else:
        output.print_line(f"{function.name} is deployed, revision {function.revision}: {_source(function)}")


def show(
    ctx: typer.Context,
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="The name of a function; by default all.", autocompletion=complete_function
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
    target: Target = None,
    json: Json = False,
) -> None:
    """Remove a function. Its waiting invocations end INVALID, running ones finish.

    \b
    Example:
      homing remove figlet
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        invalidated = client.functions.delete(name)
    if wants_json(ctx, json=json):
        output.print_json(DeleteFunctionResponse(invalidated=invalidated))
    else:
        output.print_line(f"{name} is removed; {invalidated} waiting invocations ended INVALID")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as err:
        raise typer.BadParameter(str(err), param_hint="--command") from None


def _source(function: Function) -> str:
    if function.command is not None:
        return f"command {shlex.join(function.command)}"
    return f"image {function.image}" if function.image is not None else f"url {function.url}"


def _show_all(client: Client) -> None:
    output.table(
        ("NAME", "SOURCE", "CONCURRENCY", "INSTANCES", "REVISION", "CHANGED", "STATE"),
        (
            (
                function.name,
                _source(function),
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
            ("source", _source(function)),
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
