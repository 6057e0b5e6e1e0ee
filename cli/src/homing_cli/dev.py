"""The command `homing dev`: server, worker and broker in one process, for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homing_cli.exits import REFUSED, USAGE
from homing_cli.output import complain


def dev(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A file with Python functions: they are deployed, and again whenever it is saved.",
        ),
    ] = None,
    grpc_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where gRPC is served; 127.0.0.1:50051.")
    ] = None,
    http_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where HTTP is served: functions, REST, health, metrics; 127.0.0.1:8080."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The folder for the database; what it holds goes on at the next start.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What runs functions, comma-separated: docker, process. By default both, or process alone"
            " where no Docker engine answers.",
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error; warning.")
    ] = None,
) -> None:
    """Run a server, a worker and a broker in this one process, on loopback, until Ctrl-C.

    Nothing needs to be installed or started besides. What was accepted and has not ended when it stops,
    however it stops, goes on at the next start with the same data folder. Each option can be given as an
    environment variable too: HOMING_GRPC_LISTEN and so on.

    With a FILE its functions are deployed, run by the Python that runs this, and what they write is shown here.
    An edit that does not run is told, and leaves what is deployed as it is.

    \b
    Examples:
      homing dev app.py
      homing dev &
      homing deploy shout -- tr a-z A-Z
      homing invoke shout hello
    """  # noqa: D301 - click wants the character
    try:
        from homing_cli import dev_host  # noqa: PLC0415 its needs are an extra
    except ImportError as error:
        complain(f"homing dev needs the server and the worker: pip install 'homing-cli[dev]' ({error})")
        raise typer.Exit(REFUSED) from None
    given = {
        "grpc_listen": grpc_listen,
        "http_listen": http_listen,
        "data_dir": data_dir,
        "runtime": runtime,
        "log_level": log_level,
    }
    try:
        dev_host.run({name: value for name, value in given.items() if value is not None}, file)
    except dev_host.SettingsError as error:
        complain(str(error))
        raise typer.Exit(USAGE) from None
    except dev_host.HostError as error:
        complain(str(error))
        raise typer.Exit(REFUSED) from None
