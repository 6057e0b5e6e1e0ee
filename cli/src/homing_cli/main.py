"""The program: its commands, how errors are told, and the exit codes."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
import typer.core

import homing
from homing_cli import (
    build,
    dead_letters,
    deploy,
    dev,
    functions,
    invoke,
    keys,
    listing,
    logs,
    new,
    record,
    rerun,
    scaling,
    secrets,
    signing_keys,
    stop,
    watch,
)
from homing_cli.docker import DockerError
from homing_cli.exits import exit_code
from homing_cli.options import Globals
from homing_cli.output import complain
from homing_cli.stack.errors import StackError

SETTINGS: Final = (
    "HOMING_API_KEY",
    "HOMING_TARGET",
    "HOMING_TLS_CA",
    "HOMING_TLS_CERT",
    "HOMING_TLS_KEY",
    "HOMING_USE_PROXY",
)
"""The variables that clients read."""

_NEAR: Final = 0.9
"""Names that are alike to this degree, of 1, are the same but for a slip. Those of servers and workers are not."""

EPILOG = """\b
Exit codes:
  0    done
  1    the invocation ended without success; with --each, one of them did; or you said no
  2    wrong usage, or a request that breaks a rule
  3    the server is unavailable or busy, or the time is over
  4    there is no such function, invocation, or whatever else was named
  5    refused or failed for another reason
  130  interrupted
"""


class _Commands(typer.core.TyperGroup):
    """Tells errors in one line, whichever command they come from."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except (homing.HomingError, StackError, DockerError) as error:
            complain(str(error))
            raise typer.Exit(exit_code(error)) from None


app = typer.Typer(
    name="homing",
    cls=_Commands,
    help="Invoke function containers now or later; the results find their way home.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help and errors can be searched, piped and read aloud
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"homing {homing.__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    target: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of the server, or https://HOST:PORT; by default HOMING_TARGET or localhost:50051."
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificates to trust, in PEM form; by default HOMING_TLS_CA."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate to show where one is wanted; by default HOMING_TLS_CERT."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key of that certificate; by default HOMING_TLS_KEY.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, one object a line.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command; --target and --json may stand after it too."""
    ctx.obj = Globals(target=target, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, json=json)
    _warn_of_unknown_settings()


def _warn_of_unknown_settings() -> None:
    """Tell of variables whose names are nearly those of a setting: they say something, and are not heard."""
    for name in sorted(os.environ):
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=_NEAR)
        if near and name not in SETTINGS:
            complain(f"{name} is no setting; is {near[0]} meant?")


app.command("deploy")(deploy.deploy)
app.command("new")(new.new)
app.command("build")(build.build)
app.command("up")(build.up)
app.command("functions")(functions.show)
app.command("pause")(scaling.pause)
app.command("resume")(scaling.resume)
app.command("scale")(scaling.scale)
app.command("remove")(functions.remove)
app.command("invoke")(invoke.invoke)
app.command("get")(record.get)
app.command("logs")(logs.logs)
app.command("stop")(stop.stop)
app.command("rerun")(rerun.rerun)
app.command("list")(listing.show)
app.command("count")(listing.count)
app.command("watch")(watch.watch)
app.add_typer(dead_letters.app)
app.add_typer(keys.app)
app.add_typer(secrets.app)
app.add_typer(signing_keys.app)
app.command("dev")(dev.dev)


class _Seldom(logging.Filter):
    """Lets pass one line in ten seconds: that a server is away need not be told at every try."""

    _next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + 10
        return True


def main() -> None:
    """Run the program."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("homing: %(message)s"))
    handler.addFilter(_Seldom())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    app(prog_name="homing")
