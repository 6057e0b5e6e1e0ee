"""The commands about API keys: keys create, list, revoke."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from homing import ApiKey
from homing.v1 import CreateKeyResponse
from homing_cli import output
from homing_cli.filters import complete_function
from homing_cli.options import Json, Target, connect, end, wants_json

app = typer.Typer(
    name="keys",
    help="Make, list and revoke the API keys that callers show where a server asks for them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("create")
def create(
    ctx: typer.Context,
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the key, which records show as their caller.")
    ],
    scope: Annotated[
        list[str],
        typer.Option(help="What it allows: invoke, read, operate, deploy or admin; may be repeated."),
    ],
    function: Annotated[
        list[str] | None,
        typer.Option(
            help="A function that it allows it for, by default all; may be repeated.",
            autocompletion=complete_function,
        ),
    ] = None,
    max_per_second: Annotated[
        float | None, typer.Option(help="How many calls and invocations in a second it allows; by default any number.")
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            parser=end,
            metavar="DURATION",
            help="After how long it ends, as 30d, or when, as 2030-01-01; by default never.",
        ),
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Makes it safe to say this again within a day, word for word.")
    ] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this one time.

    \b
    Examples:
      homing keys create ci --scope deploy --scope read
      homing keys create shop --scope invoke --function billing --max-per-second 50
      homing keys create guest --scope read --expires 30d
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        made = client.keys.create(
            name,
            scopes=scope,
            functions=function,
            max_per_second=max_per_second,
            expires=expires,
            request_id=request_id,
        )
    if wants_json(ctx, json=json):
        output.print_json(CreateKeyResponse(key=made.api_key.message, secret=made.secret, duplicate=made.duplicate))
        return
    # The key alone goes to standard output, so that it can be piped to where it is kept.
    output.complain(f"key {made.api_key.name} is made; it is not shown again")
    output.print_line(made.secret)


@app.command("list")
def show(ctx: typer.Context, *, target: Target = None, json: Json = False) -> None:
    """Show the keys in force, without the keys themselves.

    \b
    Example:
      homing keys list
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        if wants_json(ctx, json=json):
            for key in client.keys.list():
                output.print_json(key.message)
            return
        output.table(("NAME", "ID", "SCOPES", "FUNCTIONS", "PER SECOND", "MADE", "ENDS"), map(_row, client.keys.list()))


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the key, or its id.")],
    target: Target = None,
    json: Json = False,
) -> None:
    """End a key. All servers refuse it within seconds.

    \b
    Example:
      homing keys revoke guest
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        key = client.keys.revoke(name)
    if wants_json(ctx, json=json):
        output.print_json(key.message)
    else:
        output.print_line(f"key {key.name} is revoked")


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.name,
        key.id,
        ", ".join(scope.value.lower() for scope in key.scopes),
        ", ".join(key.functions) or "all",
        "" if key.max_per_second is None else f"{key.max_per_second:.12g}",
        output.moment(key.create_time),
        output.moment(key.expire_time),
    )
