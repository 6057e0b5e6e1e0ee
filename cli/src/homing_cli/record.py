"""The command that shows one invocation."""

from __future__ import annotations

from typing import Annotated

import typer

from homing import Attempt, Delivery, Invocation
from homing_cli import output
from homing_cli.exits import REFUSED
from homing_cli.options import Json, Target, connect, wants_json
from homing_cli.results import Output, shown

_RERUNS = 10
"""So many re-runs are named at the most."""


def get(
    ctx: typer.Context,
    *,
    invocation_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the invocation.")],
    events: Annotated[
        bool, typer.Option("--events", "-e", help="Show its whole history too, with times from its acceptance on.")
    ] = False,
    to: Output = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Show the record of an invocation: its state, what it waits for, progress, attempts, deliveries and result.

    \b
    Examples:
      homing get 01935000-0000-7000-8000-000000000001
      homing get --events 01935000-0000-7000-8000-000000000001
      homing get --output small.jpg 01935000-0000-7000-8000-000000000001
      homing get --json 01935000-0000-7000-8000-000000000001 | jq -r .result.payload.data | base64 -d
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        record = client.get(invocation_id)
        if to is not None:
            if record.result is None:
                output.complain(f"{record.id} has no result: it is {record.state}")
                raise typer.Exit(REFUSED)
            output.write_file(to, record.result.data, record.result.content_type)
            return
        if wants_json(ctx, json=json):
            output.print_json(record.message)
            return
        reruns = [one.id for one in client.list_invocations(rerun_of=record.id, limit=_RERUNS)] if record.ended else []
    _show_fields(record, reruns)
    if record.attempts:
        output.heading("Attempts")
        output.table(
            (
                "#",
                "STARTED",
                "TOOK",
                "OUTCOME",
                "STATUS",
                "FAILURE",
                "NEXT AFTER",
                "WORKER",
                "INSTANCE",
                "REVISION",
                "IMAGE",
            ),
            map(_attempt_row, record.attempts),
        )
    if events:
        _show_events(record)
    if record.deliveries:
        output.heading("Deliveries")
        output.table(
            ("ID", "KIND", "TO", "STATE", "ATTEMPTS", "LAST STATUS", "LAST FAILURE", "NEXT ATTEMPT", "CAUSED"),
            map(_delivery_row, record.deliveries),
        )
    if record.result is not None:
        answer = record.result
        output.heading(
            f"Result: status {answer.status_code}, {output.several(len(answer.data), 'byte')}"
            f" of {answer.content_type or 'data'}"
        )
        output.fields(answer.headers.pairs)
        typer.echo()
        typer.echo(shown(answer) if output.is_text(answer.data) else f"{shown(answer)}: {output.TO_FILE}")


def _show_fields(record: Invocation, reruns: list[str]) -> None:
    failure = record.failure
    output.fields(
        (
            ("id", record.id),
            ("call id", record.call_id if record.call_id != record.id else ""),
            ("function", record.function),
            ("state", str(record.state)),
            ("waits for", _waits_for(record)),
            ("progress", output.progress_of(record)),
            ("failure", f"{failure.message} [{failure.reason}]" if failure else ""),
            ("labels", output.pairs(record.labels)),
            ("caller", record.caller),
            ("accepted", output.moment(record.create_time)),
            ("started", output.moment(record.start_time)),
            ("ended", output.moment(record.end_time)),
            ("stop asked for", _stop(record)),
            ("runs again", record.rerun_of or ""),
            ("run again as", " ".join(reruns)),
            ("caused by", f"{record.caused_by}, depth {record.depth}" if record.caused_by else ""),
            ("callback", record.callback_url or ""),
            ("on success", " ".join(record.on_success)),
            ("on failure", " ".join(record.on_failure)),
        )
    )


def _waits_for(record: Invocation) -> str:
    if record.wait_reason is None:
        return ""
    until = f" until {output.moment(record.wait_until)}" if record.wait_until else ""
    return f"{record.wait_reason}{until}"


def _stop(record: Invocation) -> str:
    asked = record.stop_request
    if asked is None:
        return ""
    who = f" by {asked.caller}" if asked.caller else ""
    why = f": {asked.reason}" if asked.reason else ""
    return f"{output.moment(asked.time)}{who}{why}"


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    took = attempt.end_time - attempt.start_time if attempt.end_time and attempt.start_time else None
    return (
        str(attempt.number),
        output.moment(attempt.start_time),
        output.span(took),
        str(attempt.outcome or "RUNNING"),
        str(attempt.status_code or ""),
        attempt.failure.message if attempt.failure else "",
        f"{output.span(attempt.next_delay)} {attempt.delay_reason}" if attempt.next_delay is not None else "",
        attempt.worker,
        attempt.instance,
        str(attempt.function_revision or ""),
        _short(attempt.image_id),
    )


def _short(image_id: str) -> str:
    """Return the id of an image as `docker images` shows it."""
    return image_id.removeprefix("sha256:")[:12]


def _show_events(record: Invocation) -> None:
    output.heading("History")
    output.table(
        ("AFTER", "EVENT", "ATTEMPT", "WORKER", "DETAIL"),
        (
            (
                output.after(event.time, record.create_time),
                str(event.type),
                str(event.attempt or ""),
                event.worker,
                event.detail,
            )
            for event in record.events
        ),
    )


def _delivery_row(delivery: Delivery) -> tuple[str, ...]:
    last = delivery.attempts[-1] if delivery.attempts else None
    return (
        delivery.id,
        str(delivery.kind),
        delivery.uri,
        str(delivery.state),
        str(len(delivery.attempts)),
        str(last.status_code or "") if last else "",
        last.failure.message if last and last.failure else "",
        output.moment(delivery.next_attempt_time),
        delivery.caused or "",
    )
