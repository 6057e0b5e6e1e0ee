"""The command deploy."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Annotated, Any

import typer

from homing import Client, Function, Limits, NotFoundError, RetryPolicy
from homing_cli import output
from homing_cli.functions import source_of
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
from homing_cli.stack_deploy import Rollout
from homing_cli.stack_options import Filter, Regex, StackFile, load_stack


def deploy(
    ctx: typer.Context,
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The name of the function.")] = None,
    program: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROGRAM", help="A program to run once a call, with its arguments; behind --."),
    ] = None,
    http: Annotated[
        bool,
        typer.Option(
            "--http", help="The program is not run once a call, but stays: it answers HTTP on the port in $PORT."
        ),
    ] = False,
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
    public: Annotated[
        bool | None, typer.Option("--public/--no-public", help="Whether it may be invoked without an API key.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take what is not named back to its default, in place of leaving it.")
    ] = False,
    expected_revision: Annotated[
        int | None, typer.Option(help="Change it only where it is at this revision; 0: only where there is none.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Roll it out anew although nothing has changed, as after a new build.")
    ] = False,
    yaml: StackFile = None,
    filter: Filter = None,  # noqa: A002 as the option is
    regex: Regex = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Create a function or, where the name exists, change what is named of it. The rest stays, without --replace.

    Environment variables, labels, annotations, secrets and destinations are named as a whole.

    Without a name, deploy the functions of a stack file, each as a whole, one after the other.

    \b
    Examples:
      homing deploy figlet --image figlet:1 --max-instances 2
      homing deploy upper -- tr a-z A-Z
      homing deploy site --http --concurrency 20 -- node server.js
      homing deploy mailer --image mailer:1 --secret smtp-password
      homing deploy scan --image scan:1 --on-success function:resize --on-failure amqp:failures/scan
      homing deploy legacy --url http://10.0.0.7:8080/run --attempt-timeout 30s
      homing deploy figlet --max-instances 8
      homing deploy figlet --image figlet:2 --expected-revision 7
      homing deploy figlet --force
      homing deploy -f stack.yaml --filter 'report-*'
    """  # noqa: D301 - click wants the character
    if name is None:
        _refuse_all_but(ctx, "yaml", "filter", "regex", "force", "target", "json")
        stack = load_stack(yaml, filter=filter, regex=regex, otherwise="name a function, or a stack file: -f FILE")
        Rollout.of(ctx, stack, target=target, force=force, json=wants_json(ctx, json=json)).run()
        return
    if yaml is not None or filter is not None or regex is not None:
        raise typer.BadParameter("a stack file names its functions itself; --filter chooses", param_hint="NAME")
    words = _program(program, command, http=http)
    options = _named(
        image=image,
        command=None if http else words,
        http_command=words if http else None,
        url=url,
        env=pairs("--env", env),
        labels=pairs("--label", label),
        annotations=pairs("--annotation", annotation),
        secrets=secret,
        concurrency=concurrency,
        min_instances=min_instances,
        max_instances=max_instances,
        idle_timeout=idle_timeout,
        attempt_timeout=attempt_timeout,
        max_age=max_age,
        retention=retention,
        record_sync=record_sync,
        on_success=on_success,
        on_failure=on_failure,
        public=public,
    )
    limits = _named(memory_bytes=memory_limit, cpu_millis=cpu_limit, pids=pids)
    policy = _named(max_attempts=max_attempts, initial_backoff=initial_backoff, max_backoff=max_backoff)
    with connect(ctx, target) as client:
        current = None
        if (limits or policy) and not replace:
            # The API sets these two as a whole: what is not named of them stays as it is at this revision.
            current = _current(client, name)
            if expected_revision is None:
                expected_revision = current.revision if current else 0
        if limits:
            options["limits"] = dataclasses.replace(current.limits if current else Limits(), **limits)
        if policy:
            options["retry_policy"] = dataclasses.replace((current and current.retry_policy) or RetryPolicy(), **policy)
        if replace:
            function = client.functions.deploy(name=name, expected_revision=expected_revision, force=force, **options)
        else:
            function = client.functions.update(name, expected_revision=expected_revision, force=force, **options)
    if wants_json(ctx, json=json):
        output.print_json(function.message)
    else:
        output.print_line(f"{function.name} is deployed, revision {function.revision}: {source_of(function)}")


def _refuse_all_but(ctx: typer.Context, *allowed: str) -> None:
    """See to it that nothing is asked for that a stack file says, of each of its functions."""
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        given = value is not None and value is not False and value not in ([], ())
        if given and parameter.name not in allowed:
            raise typer.BadParameter(
                "is for one function: name that, or say it in the stack file", param_hint=parameter.opts[0]
            )


def _named(**options: Any) -> dict[str, Any]:
    """Return the options that the command line names."""
    return {name: value for name, value in options.items() if value not in (None, [], {})}


def _current(client: Client, name: str) -> Function | None:
    try:
        return client.functions.get(name)
    except NotFoundError:
        return None


def _program(program: list[str] | None, command: str | None, *, http: bool) -> list[str] | None:
    """Return the program that is named, in either way; None where none is."""
    if program and command is not None:
        raise typer.BadParameter("the program is given twice", param_hint="--command")
    words = program or (None if command is None else _words(command))
    if http and not words:
        raise typer.BadParameter("tells how a program is run, and none is given", param_hint="--http")
    return words


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as err:
        raise typer.BadParameter(str(err), param_hint="--command") from None
