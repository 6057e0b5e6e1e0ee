"""The command that runs functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypedDict

import typer

from homing import AsyncOptions, InvocationError
from homing_cli.each import invoke_each
from homing_cli.filters import complete_function
from homing_cli.options import Json, Labels, OnFailure, OnSuccess, Target, connect, duration, headers, pairs, wants_json
from homing_cli.payload import read_payload
from homing_cli.results import Output, print_accepted, print_failure, print_result, print_stream, wait_and_print


class CallOptions(TypedDict):
    """What invoke and invoke_stream are told alike."""

    content_type: str | None
    headers: Mapping[str, list[str]] | None
    labels: Mapping[str, str] | None
    timeout: float
    attempt_timeout: float | None
    call_id: str | None


def invoke(
    ctx: typer.Context,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the function.", autocompletion=complete_function)
    ],
    payload: Annotated[str | None, typer.Argument(metavar="PAYLOAD", help="The payload, as text.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="The payload: a text, @FILE, or @- for standard input.")
    ] = None,
    content_type: Annotated[str | None, typer.Option(help="The media type of the payload.")] = None,
    each: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Run it for each line of a file, - for standard input; one result a line."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1000, help="With --each: so many are under way at a time.")
    ] = 50,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the output as it comes, of whatever size it is.")
    ] = False,
    later: Annotated[bool, typer.Option("--async", help="Return once it is accepted; print its id.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --async: then wait, and print the result.")] = False,
    callback_url: Annotated[
        str | None, typer.Option(help="With --async or --each: a URL that receives the output.")
    ] = None,
    callback_header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="With --callback-url: a header of the callback; may be repeated, also with the same name.",
        ),
    ] = None,
    on_success: OnSuccess = None,
    on_failure: OnFailure = None,
    delay: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="With --async or --each: start it so much later, up to 30d."
        ),
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="With --async: makes it safe to say this again.")] = None,
    call_id: Annotated[
        str | None, typer.Option(metavar="ID", help="What X-Call-Id shows; by default the id of the invocation.")
    ] = None,
    label: Labels = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="KEY=VALUE",
            help="A header of the request; may be repeated, also with the same name.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="DURATION", help="How long to wait; 1m, with --each or --async --wait for ever."
        ),
    ] = None,
    attempt_timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="How long an attempt may run.")
    ] = None,
    to: Output = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Run a function with a payload from the arguments, from a file or from what is piped in, and print its output.

    \b
    Examples:
      homing invoke figlet hello
      homing invoke resize -d @photo.jpg > small.jpg
      homing invoke resize -d @photo.jpg --output small.jpg
      cat words.txt | homing invoke figlet
      homing invoke chat hello --stream
      homing invoke report --async --callback-url http://localhost:9000/done
      homing invoke report --async --on-success function:mail --on-failure https://example.com/failed
      homing invoke report --async --wait --timeout 10m
      homing invoke report --async --delay 12h
      homing invoke resize --each names.txt --concurrency 20 > sizes.txt
    """  # noqa: D301 - click wants the character
    if stream:
        _refuse(
            "cannot be given together with --stream",
            {"--async": later or None, "--each": each, "--json": json or None},
        )
    if not later:
        _refuse("needs --async", {"--request-id": request_id, "--wait": wait or None})
    if not later and each is None:
        _refuse(
            "needs --async or --each",
            {
                "--callback-url": callback_url,
                "--callback-header": callback_header,
                "--on-success": on_success,
                "--on-failure": on_failure,
                "--delay": delay,
            },
        )
    if later and not wait:
        _refuse("needs a result: with --async also --wait", {"--output": to})
    as_json = wants_json(ctx, json=json)
    options: AsyncOptions = {
        "headers": headers("--header", header),
        "labels": pairs("--label", label),
        "callback_url": callback_url,
        "callback_headers": headers("--callback-header", callback_header),
        "on_success": on_success,
        "on_failure": on_failure,
        "delay": delay,
        "attempt_timeout": attempt_timeout,
        "call_id": call_id,
    }
    if each is not None:
        _refuse(
            "cannot be given together with --each",
            {"PAYLOAD": payload, "--data": data, "--async": later or None, "--output": to},
        )
        options["content_type"] = content_type
        with connect(ctx, target) as client:
            invoke_each(client, name, each, options, concurrency=concurrency, timeout=timeout, as_json=as_json)
        return
    body, guessed = read_payload(payload, data)
    with connect(ctx, target) as client:
        if later:
            options["content_type"] = content_type or guessed
            handle = client.invoke_async(name, body, request_id=request_id, **options)
            if wait:
                wait_and_print(handle, timeout, as_json=as_json, to=to)
            else:
                print_accepted(handle, as_json=as_json)
            return
        call: CallOptions = {
            "content_type": content_type or guessed,
            "headers": headers("--header", header),
            "labels": pairs("--label", label),
            "timeout": 60.0 if timeout is None else timeout,
            "attempt_timeout": attempt_timeout,
            "call_id": call_id,
        }
        try:
            if stream:
                print_stream(client.invoke_stream(name, body, **call), to=to)
                return
            result = client.invoke(name, body, **call)
        except InvocationError as error:
            print_failure(error, as_json=as_json)
            raise
    print_result(result, as_json=as_json, to=to)


def _refuse(why: str, given: Mapping[str, object]) -> None:
    """Refuse options that do not belong to what was asked for.

    :raises typer.BadParameter: One is given.
    """
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(why, param_hint=option)
