"""The commands about invocations: invoke, get."""

from __future__ import annotations

from typing import Annotated

import typer

from homing import Answer, Client, Invocation, InvocationError, Result, RunOptions
from homing_cli import output
from homing_cli.each import invoke_each
from homing_cli.options import Json, Labels, Target, connect, duration, pairs, wants_json
from homing_cli.payload import read_payload

_SHOWN = 4096
"""At most so many characters of a result are shown between other things."""


def invoke(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the function.")],
    payload: Annotated[str | None, typer.Argument(metavar="[PAYLOAD]", help="The payload, as text.")] = None,
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
    later: Annotated[bool, typer.Option("--async", help="Return once it is accepted; print its id.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --async: then wait, and print the result.")] = False,
    callback_url: Annotated[str | None, typer.Option(help="With --async: a URL that receives the output.")] = None,
    request_id: Annotated[str | None, typer.Option(help="With --async: makes it safe to say this again.")] = None,
    label: Labels = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="KEY=VALUE", help="A header of the request; may be repeated."),
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
    target: Target = None,
    json: Json = False,
) -> None:
    """Run a function with a payload from the arguments, from a file or from what is piped in, and print its output.

    \b
    Examples:
      homing invoke figlet hello
      homing invoke resize -d @photo.jpg > small.jpg
      cat words.txt | homing invoke figlet
      homing invoke report --async --callback-url http://localhost:9000/done
      homing invoke report --async --wait --timeout 10m
      homing invoke resize --each names.txt --concurrency 20 > sizes.txt
    """  # noqa: D301 - click wants the character
    if not later:
        given = {"--callback-url": callback_url, "--request-id": request_id, "--wait": wait or None}
        for option, value in given.items():
            if value is not None:
                raise typer.BadParameter("needs --async", param_hint=option)
    as_json = wants_json(ctx, json=json)
    if each is not None:
        given = {"PAYLOAD": payload, "--data": data, "--async": later or None}
        for option, value in given.items():
            if value is not None:
                raise typer.BadParameter("cannot be given together with --each", param_hint=option)
        options: RunOptions = {
            "content_type": content_type,
            "headers": pairs("--header", header) or None,
            "labels": pairs("--label", label),
            "attempt_timeout": attempt_timeout,
        }
        with connect(ctx, target) as client:
            invoke_each(client, name, each, options, concurrency=concurrency, timeout=timeout, as_json=as_json)
        return
    body, guessed = read_payload(payload, data)
    with connect(ctx, target) as client:
        try:
            if not later:
                result = client.invoke(
                    name,
                    body,
                    content_type=content_type or guessed,
                    headers=pairs("--header", header) or None,
                    labels=pairs("--label", label),
                    timeout=60.0 if timeout is None else timeout,
                    attempt_timeout=attempt_timeout,
                )
            else:
                handle = client.invoke_async(
                    name,
                    body,
                    content_type=content_type or guessed,
                    headers=pairs("--header", header) or None,
                    labels=pairs("--label", label),
                    callback_url=callback_url,
                    request_id=request_id,
                    attempt_timeout=attempt_timeout,
                )
                if not wait:
                    _print_accepted(client, handle.id, as_json=as_json)
                    return
                output.complain(f"accepted as {handle.id}")
                result = handle.result(timeout)
        except InvocationError as error:
            _print_failure(error, as_json=as_json)
            raise
    _print_result(result, as_json=as_json)


def get(
    ctx: typer.Context,
    *,
    invocation_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the invocation.")],
    target: Target = None,
    json: Json = False,
) -> None:
    """Show the whole record of an invocation: its state, attempts, history, deliveries and result.

    \b
    Examples:
      homing get 01935000-0000-7000-8000-000000000001
      homing get --json 01935000-0000-7000-8000-000000000001 | jq -r .result.payload.data | base64 -d
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        record = client.get(invocation_id)
    if wants_json(ctx, json=json):
        output.print_json(record.message)
    else:
        _show(record)


def _print_accepted(client: Client, invocation_id: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(client.get(invocation_id).message)
    else:
        output.print_line(invocation_id)


def _print_result(result: Result, *, as_json: bool) -> None:
    if as_json:
        output.print_json(result.invocation.message)
    else:
        output.print_raw(result.data)


def _print_failure(error: InvocationError, *, as_json: bool) -> None:
    """Print what the function said last, apart from where its output would go."""
    if as_json:
        output.print_json(error.invocation.message)
    elif error.result is not None and error.result.data:
        typer.echo(_shown(error.result), err=True)


def _shown(answer: Answer) -> str:
    """Return the beginning of an answer's text, line by line, without control characters."""
    lines = answer.text[:_SHOWN].splitlines()
    rest = ["…"] if len(answer.text) > _SHOWN else []
    return "\n".join([*(output.plain(line) for line in lines), *rest])


def _show(record: Invocation) -> None:
    failure = record.failure
    output.fields(
        (
            ("id", record.id),
            ("function", record.function),
            ("state", str(record.state)),
            ("waits for", _waits_for(record)),
            ("failure", f"{failure.message} [{failure.reason}]" if failure else ""),
            ("labels", output.pairs(record.labels)),
            ("caller", record.caller),
            ("accepted", output.moment(record.create_time)),
            ("started", output.moment(record.start_time)),
            ("ended", output.moment(record.end_time)),
            ("callback", record.callback_url or ""),
        )
    )
    if record.attempts:
        output.heading("Attempts")
        output.table(
            ("#", "STARTED", "TOOK", "OUTCOME", "STATUS", "FAILURE", "NEXT AFTER", "WORKER", "INSTANCE"),
            (
                (
                    str(attempt.number),
                    output.moment(attempt.start_time),
                    output.span(
                        attempt.end_time - attempt.start_time if attempt.end_time and attempt.start_time else None
                    ),
                    str(attempt.outcome or "RUNNING"),
                    str(attempt.status_code or ""),
                    attempt.failure.message if attempt.failure else "",
                    f"{output.span(attempt.next_delay)} {attempt.delay_reason}"
                    if attempt.next_delay is not None
                    else "",
                    attempt.worker,
                    attempt.instance,
                )
                for attempt in record.attempts
            ),
        )
    if record.events:
        output.heading("History")
        output.table(
            ("TIME", "EVENT", "ATTEMPT", "WORKER", "DETAIL"),
            (
                (output.moment(event.time), str(event.type), str(event.attempt or ""), event.worker, event.detail)
                for event in record.events
            ),
        )
    if record.deliveries:
        output.heading("Deliveries")
        output.table(
            ("KIND", "TO", "STATE", "ATTEMPTS", "LAST STATUS", "LAST FAILURE"),
            (
                (
                    str(delivery.kind),
                    delivery.uri,
                    str(delivery.state),
                    str(len(delivery.attempts)),
                    str(delivery.attempts[-1].status_code or "") if delivery.attempts else "",
                    last.message if delivery.attempts and (last := delivery.attempts[-1].failure) else "",
                )
                for delivery in record.deliveries
            ),
        )
    if record.result is not None:
        answer = record.result
        output.heading(
            f"Result: status {answer.status_code}, {len(answer.data)} bytes of {answer.content_type or 'data'}"
        )
        typer.echo(_shown(answer))


def _waits_for(record: Invocation) -> str:
    if record.hold_reason is None:
        return ""
    until = f" until {output.moment(record.hold_until)}" if record.hold_until else ""
    return f"{record.hold_reason}{until}"
