"""The commands about what came to nothing: deadletters list, show, redrive, purge."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated

import typer

from homing import Client, DeadLetter, DeadLetterKind, DeadLetterOptions, Delivery
from homing_cli import output
from homing_cli.bulk import BULK_TIMEOUT, DryRun, RequestId, Yes, carry_out, confirm, tell_count
from homing_cli.exits import NOT_FOUND
from homing_cli.filters import Functions
from homing_cli.options import Json, Target, connect, moment, wants_json

_NOUN = "dead letter"
_KINDS = [kind for kind in DeadLetterKind if kind is not DeadLetterKind.UNKNOWN]

app = typer.Typer(
    name="deadletters",
    help="Look after invocations and deliveries that came to nothing: list them, try them again, forget them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _kind(text: str) -> DeadLetterKind:
    for kind in _KINDS:
        if kind.value == text.upper():
            return kind
    raise typer.BadParameter(f"{text!r} is none of {', '.join(kind.value for kind in _KINDS)}")


def _complete_kind(incomplete: str) -> Iterable[str]:
    return [kind.value for kind in _KINDS if kind.value.startswith(incomplete)]


Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="The ids of dead letters: of invocations or deliveries.")
]
Kind = Annotated[
    DeadLetterKind | None,
    typer.Option(
        "--kind",
        "-k",
        parser=_kind,
        metavar="KIND",
        help="Only INVOCATION, or only DELIVERY.",
        autocompletion=_complete_kind,
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        parser=moment, metavar="TIME", help="Came to nothing since then: 2026-11-22T08:00, or 90m for so long ago."
    ),
]
Until = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Came to nothing before then; the same.")
]


@app.command("list")
def show_all(
    ctx: typer.Context,
    *,
    function: Functions = None,
    kind: Kind = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show so many at the most.")] = 50,
    target: Target = None,
    json: Json = False,
) -> None:
    """List dead letters, the newest first. Where there are more than are shown, standard error says so.

    \b
    Examples:
      homing deadletters list
      homing deadletters list --function report --kind DELIVERY --since 24h
      homing deadletters list --json | jq -r .id
    """  # noqa: D301 - click wants the character
    chosen = _conditions(None, function, kind, since, until)
    with connect(ctx, target) as client:
        found = client.dead_letters.list(**chosen, limit=limit + 1)
        shown = itertools.islice(found, limit)
        if wants_json(ctx, json=json):
            for letter in shown:
                output.print_json(letter.message)
        else:
            output.table(("ID", "KIND", "FUNCTION", "TIME", "END", "TO", "FAILURE"), map(_row, shown))
        if next(found, None) is not None:
            output.complain(f"there are more than these {limit}; see --limit")


@app.command("show")
def show(
    ctx: typer.Context,
    *,
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the invocation or of the delivery.")],
    target: Target = None,
    json: Json = False,
) -> None:
    """Show a dead letter; of a delivery, with all its attempts. See homing get for the record of its invocation.

    \b
    Example:
      homing deadletters show 01935000-0000-7000-8000-000000000001
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        letter = client.dead_letters.get(dead_letter_id)
    if wants_json(ctx, json=json):
        output.print_json(letter.message)
        return
    failure, delivery = letter.failure, letter.delivery
    output.fields(
        (
            ("id", letter.id),
            ("kind", str(letter.kind)),
            ("invocation", letter.invocation_id),
            ("function", letter.function),
            ("end", str(letter.state)),
            ("time", output.moment(letter.time)),
            ("failure", f"{failure.message} [{failure.reason}]" if failure else ""),
            ("asked for by", str(delivery.kind) if delivery else ""),
            ("to", delivery.uri if delivery else ""),
        )
    )
    if delivery is not None and delivery.attempts:
        _show_attempts(delivery)


@app.command("redrive")
def redrive(
    ctx: typer.Context,
    *,
    ids: Ids = None,
    function: Functions = None,
    kind: Kind = None,
    since: Since = None,
    until: Until = None,
    max_per_second: Annotated[float | None, typer.Option(min=0, help="So many start in a second at the most.")] = None,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Try dead letters again: invocations run again, as new ones, and deliveries are made again.

    What is tried again is no dead letter any more. With a filter the number is told and confirmed on the terminal
    first. On a terminal it shows how far it is; one that broke off goes on by its request id.

    \b
    Examples:
      homing deadletters redrive 01935000-0000-7000-8000-000000000001
      homing deadletters redrive --function report --since 2h --dry-run
      homing deadletters redrive --kind DELIVERY --max-per-second 10 --yes
    """  # noqa: D301 - click wants the character
    chosen = _chosen(ids, function, kind, since, until)
    as_json = wants_json(ctx, json=json)
    with connect(ctx, target) as client:
        if dry_run:
            matched = client.dead_letters.redrive(dry_run=True, timeout=BULK_TIMEOUT, **chosen).matched
            tell_count(matched, "be tried again", as_json=as_json, noun=_NOUN)
            return
        if not (ids or yes):
            _ask(client, chosen, "Try {} again?")
        done = carry_out(
            lambda id_, report: client.dead_letters.redrive(
                max_per_second=max_per_second, request_id=id_, on_progress=report, timeout=BULK_TIMEOUT, **chosen
            ),
            request_id=request_id,
            times={"--since": since, "--until": until},
            shown=lambda counts: {
                "run again": counts.rerun,
                "delivered again": counts.redelivered,
                "cannot": counts.refused,
            },
        )
    if as_json:
        output.print_json(
            {
                "matched": done.matched,
                "rerun": done.rerun,
                "redelivered": done.redelivered,
                "refused": done.refused,
            }
        )
    else:
        parts = [f"{done.rerun:,} run again", f"{done.redelivered:,} delivered again"]
        if done.refused:
            parts.append(f"{done.refused:,} cannot, since their functions or payloads are gone")
        output.print_line(f"{output.several(done.matched, _NOUN)}: {', '.join(parts)}")
    _check_found(ids, done.matched)


@app.command("purge")
def purge(
    ctx: typer.Context,
    *,
    ids: Ids = None,
    function: Functions = None,
    kind: Kind = None,
    since: Since = None,
    until: Until = None,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Forget dead letters. The records of their invocations stay until their retention is over.

    With a filter the number is told and confirmed on the terminal first. On a terminal it shows how far it is; one that
    broke off goes on by its request id.

    \b
    Examples:
      homing deadletters purge 01935000-0000-7000-8000-000000000001
      homing deadletters purge --function report --until 7d --yes
    """  # noqa: D301 - click wants the character
    chosen = _chosen(ids, function, kind, since, until)
    as_json = wants_json(ctx, json=json)
    with connect(ctx, target) as client:
        if dry_run:
            matched = client.dead_letters.purge(dry_run=True, timeout=BULK_TIMEOUT, **chosen).matched
            tell_count(matched, "be forgotten", as_json=as_json, noun=_NOUN)
            return
        if not (ids or yes):
            _ask(client, chosen, "Forget {}?")
        done = carry_out(
            lambda id_, report: client.dead_letters.purge(
                request_id=id_, on_progress=report, timeout=BULK_TIMEOUT, **chosen
            ),
            request_id=request_id,
            times={"--since": since, "--until": until},
            shown=lambda counts: {"forgotten": counts.purged},
        )
    if as_json:
        output.print_json({"matched": done.matched, "purged": done.purged})
    else:
        output.print_line(f"{output.several(done.matched, _NOUN)}: {done.purged:,} forgotten")
    _check_found(ids, done.matched)


def _conditions(
    ids: Sequence[str] | None,
    function: Sequence[str] | None,
    kind: DeadLetterKind | None,
    since: datetime | None,
    until: datetime | None,
) -> DeadLetterOptions:
    chosen: DeadLetterOptions = {}
    if ids:
        chosen["ids"] = ids
    if function:
        chosen["function"] = function
    if kind is not None:
        chosen["kind"] = kind
    if since is not None:
        chosen["since"] = since
    if until is not None:
        chosen["until"] = until
    return chosen


def _chosen(
    ids: Sequence[str] | None,
    function: Sequence[str] | None,
    kind: DeadLetterKind | None,
    since: datetime | None,
    until: datetime | None,
) -> DeadLetterOptions:
    """Return which dead letters are named, either by id or by a filter.

    :raises typer.BadParameter: They are not.
    """
    chosen = _conditions(ids, function, kind, since, until)
    if not chosen:
        raise typer.BadParameter("give an id, or a filter such as --function", param_hint="ID")
    if ids and len(chosen) > 1:
        raise typer.BadParameter("cannot be given together with a filter", param_hint="ID")
    return chosen


def _ask(client: Client, chosen: DeadLetterOptions, question: str) -> None:
    matched = client.dead_letters.purge(dry_run=True, timeout=BULK_TIMEOUT, **chosen).matched
    if matched:
        confirm(question.format(output.several(matched, _NOUN)))


def _check_found(ids: Sequence[str] | None, matched: int) -> None:
    """Say so where ids were given that no dead letter has.

    :raises typer.Exit: There are such.
    """
    missing = len(set(ids or ())) - matched
    if ids and missing > 0:
        output.complain(f"no dead letter has {'this id' if len(ids) == 1 else f'{missing} of these ids'}")
        raise typer.Exit(NOT_FOUND)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return (
        letter.id,
        str(letter.kind),
        letter.function,
        output.moment(letter.time),
        str(letter.state),
        letter.delivery.uri if letter.delivery else "",
        letter.failure.message if letter.failure else "",
    )


def _show_attempts(delivery: Delivery) -> None:
    output.heading("Attempts")
    output.table(
        ("#", "STARTED", "TOOK", "STATUS", "FAILURE"),
        (
            (
                str(attempt.number),
                output.moment(attempt.start_time),
                output.span(attempt.duration),
                str(attempt.status_code or ""),
                attempt.failure.message if attempt.failure else "",
            )
            for attempt in delivery.attempts
        ),
    )
