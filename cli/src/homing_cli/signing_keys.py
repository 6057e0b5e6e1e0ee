"""The commands about the keys that deliveries are signed with: signing-key rotate, list, revoke."""

from __future__ import annotations

from typing import Annotated

import typer

from homing.v1 import RotateSigningKeyResponse
from homing_cli import output
from homing_cli.filters import complete_function
from homing_cli.options import Json, Target, connect, wants_json

app = typer.Typer(
    name="signing-key",
    help="Rotate, list and revoke the keys that callbacks and other HTTP deliveries are signed with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("rotate")
def rotate(
    ctx: typer.Context,
    *,
    function: Annotated[
        str | None,
        typer.Option(
            help="Whose deliveries it signs; by default those of all functions without a key of their own.",
            autocompletion=complete_function,
        ),
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="Makes it safe to say this again.")] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Make a new key and print it, this one time. The one before stays active beside it, so receivers can change over.

    \b
    Examples:
      homing signing-key rotate
      homing signing-key rotate --function billing
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        made = client.signing_keys.rotate(function=function, request_id=request_id)
    if wants_json(ctx, json=json):
        output.print_json(
            RotateSigningKeyResponse(signing_key=made.signing_key.message, key=made.key, duplicate=made.duplicate)
        )
        return
    # The key alone goes to standard output, so that it can be piped to where it is kept.
    output.complain(f"key {made.signing_key.id} signs from now on; it is not shown again")
    output.print_line(made.key)


@app.command("list")
def show(
    ctx: typer.Context,
    *,
    function: Annotated[
        str | None, typer.Option(help="Whose; by default those of all.", autocompletion=complete_function)
    ] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Show which signing keys there are, without the keys themselves; the newest of each function first.

    \b
    Example:
      homing signing-key list
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        keys = client.signing_keys.list(function=function)
    if wants_json(ctx, json=json):
        for key in keys:
            output.print_json(key.message)
        return
    output.table(
        ("ID", "FUNCTION", "MADE"),
        ((key.id, key.function or "(all without their own)", output.moment(key.create_time)) for key in keys),
    )


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    *,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the key.")],
    target: Target = None,
    json: Json = False,
) -> None:
    """Remove a signing key: one that has leaked, or the former one once receivers know the new one.

    \b
    Example:
      homing signing-key revoke 0199a3c4-5d6e-7f80-9a1b-2c3d4e5f6071
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        client.signing_keys.revoke(key_id)
    if wants_json(ctx, json=json):
        output.print_json({"id": key_id})
    else:
        output.print_line(f"signing key {key_id} is revoked")
