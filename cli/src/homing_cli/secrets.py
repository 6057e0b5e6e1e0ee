"""The commands about secrets: secret create, update, list, delete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from homing import Secret
from homing_cli import output
from homing_cli.options import Json, Target, connect, wants_json
from homing_cli.payload import is_piped

_LARGEST = 64 * 1024

app = typer.Typer(
    name="secret",
    help="Make, change, list and remove secrets. Functions see them as files; nobody is told their values.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the secret.")]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--from-file", metavar="FILE", help="Where its value is, as it is; by default standard input, or a prompt."
    ),
]


@app.command("create")
def create(
    ctx: typer.Context, *, name: Name, from_file: FromFile = None, target: Target = None, json: Json = False
) -> None:
    """Make a secret. Its value comes from a file, from standard input, or is asked for without showing it.

    \b
    Examples:
      homing secret create smtp-password
      homing secret create tls.key --from-file tls.key
      pass show smtp | homing secret create smtp-password
    """  # noqa: D301 - click wants the character
    value = _read(from_file)
    with connect(ctx, target) as client:
        secret = client.secrets.create(name, value)
    _tell(secret, f"secret {secret.name} is made", as_json=wants_json(ctx, json=json))


@app.command("update")
def update(
    ctx: typer.Context, *, name: Name, from_file: FromFile = None, target: Target = None, json: Json = False
) -> None:
    """Give a secret another value. Instances that see it are replaced.

    \b
    Examples:
      homing secret update smtp-password
      homing secret update tls.key --from-file tls.key
    """  # noqa: D301 - click wants the character
    value = _read(from_file)
    with connect(ctx, target) as client:
        secret = client.secrets.update(name, value)
    text = f"secret {secret.name} has its value number {secret.version}"
    _tell(secret, text, as_json=wants_json(ctx, json=json))


@app.command("list")
def show(ctx: typer.Context, *, target: Target = None, json: Json = False) -> None:
    """Show which secrets there are, without their values.

    \b
    Example:
      homing secret list
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        if wants_json(ctx, json=json):
            for secret in client.secrets.list():
                output.print_json(secret.message)
            return
        output.table(
            ("NAME", "VALUES", "MADE", "CHANGED"),
            (
                (
                    secret.name,
                    str(secret.version),
                    output.moment(secret.create_time),
                    output.moment(secret.update_time),
                )
                for secret in client.secrets.list()
            ),
        )


@app.command("delete")
def delete(ctx: typer.Context, *, name: Name, target: Target = None, json: Json = False) -> None:
    """Remove a secret that no function names.

    \b
    Example:
      homing secret delete smtp-password
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        client.secrets.delete(name)
    if wants_json(ctx, json=json):
        output.print_json({"name": name})
    else:
        output.print_line(f"secret {name} is removed")


def _tell(secret: Secret, text: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(secret.message)
    else:
        output.print_line(text)


def _read(path: Path | None) -> bytes:
    """Return the value of a secret, byte for byte; one that is typed in ends before its line feed.

    :raises typer.BadParameter: It cannot be read, or is too large.
    """
    if path is not None:
        try:
            with path.open("rb") as file:
                value = file.read(_LARGEST + 1)
        except OSError as err:
            raise typer.BadParameter(f"cannot read {path}: {err.strerror}", param_hint="--from-file") from None
    elif sys.stdin.isatty():
        value = typer.prompt("Value", hide_input=True, confirmation_prompt=True).encode()
    elif is_piped():
        value = sys.stdin.buffer.read(_LARGEST + 1)
    else:
        raise typer.BadParameter("give the value by --from-file, or pipe it in", param_hint="--from-file")
    if len(value) > _LARGEST:
        raise typer.BadParameter(f"a value has at most {_LARGEST} bytes (64 KiB)", param_hint="--from-file")
    return value
