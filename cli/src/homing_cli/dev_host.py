"""Puts server, worker and embedded broker together in one process. Needs the extra `dev`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop
from pydantic import ValidationError

from homing import AsyncClient
from homing_cli.dev_file import FunctionFile
from homing_cli.output import complain
from homing_core.broker.embedded import EmbeddedBroker, Exchange
from homing_core.logs import configure_logs
from homing_core.memory import freeze_startup_objects
from homing_core.open_files import raise_limit_of_files
from homing_core.private import make_data_dir, make_private_file
from homing_core.settings import LOOPBACK, CommonSettings, default_data_dir, explain, unknown_settings
from homing_server.app import Server
from homing_server.errors import ApiError
from homing_server.settings import ServerSettings
from homing_worker.app import Worker
from homing_worker.runtime import StartFailedError
from homing_worker.runtime.docker import engine_answers
from homing_worker.settings import WorkerSettings

_LOG_LEVEL = "warning"

_S = TypeVar("_S", bound=CommonSettings)


class SettingsError(Exception):
    """A setting is wrong."""


class HostError(Exception):
    """It cannot run."""


def run(given: Mapping[str, Any], file: Path | None = None) -> None:
    """Run until the process is told to stop.

    :param given: The settings that were given as options; others come from the environment.
    :param file: A file whose functions are deployed, now and whenever it is saved.
    :raises SettingsError: A setting is wrong.
    :raises HostError: An address or the data folder is taken or cannot be used.
    """
    started = time.monotonic()
    values = dict(given)
    if "HOMING_DATA_DIR" not in os.environ:
        values.setdefault("data_dir", default_data_dir() / "dev")
    if "HOMING_LOG_LEVEL" not in os.environ:
        values.setdefault("log_level", _LOG_LEVEL)
    if "HOMING_CALLBACK_NETWORKS" not in os.environ:
        # Whoever tries things out has the receivers here.
        values.setdefault("callback_networks", LOOPBACK)
    if "HOMING_COMMAND_USERS" not in os.environ:
        # Whoever tries things out has the programs and files of its commands where only its own user comes to.
        values.setdefault("command_users", "")
    if "HOMING_FUNCTION_NETWORKS" not in os.environ:
        values.setdefault("function_networks", LOOPBACK)
    if "HOMING_AMQP_DESTINATIONS" not in os.environ:
        values.setdefault("amqp_destinations", "*")
    server = _settings(ServerSettings, values)
    for warning in unknown_settings(os.environ, ServerSettings, WorkerSettings):
        complain(warning)
    configure_logs(server.log_level)
    raise_limit_of_files()
    freeze_startup_objects()
    try:
        make_data_dir(server.data_dir)
        with _sole_user(server.data_dir):
            uvloop.run(_host(server, values, started, file))
    except (OSError, RuntimeError, ValueError, ApiError, StartFailedError) as error:
        raise HostError(str(error)) from error


async def _host(settings: ServerSettings, values: dict[str, Any], started: float, file: Path | None) -> None:
    if "runtime" not in values and "HOMING_RUNTIME" not in os.environ:
        docker = await engine_answers(_settings(WorkerSettings, values).docker_url)
        values["runtime"] = "docker,process" if docker else "process"
    worker_settings = _settings(WorkerSettings, values)
    exchange = Exchange()
    server = Server(settings, lambda _: EmbeddedBroker(exchange))
    worker = Worker(worker_settings, lambda _: EmbeddedBroker(exchange), show=None if file is None else _show)
    stop, stop_server = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(server.run(stop_server))
    working = asyncio.create_task(worker.run(stop))

    def on_signal() -> None:
        if stop.is_set():
            # Told twice: at once. What was not finished goes on at the next start.
            working.cancel()
            stop_server.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    ready = asyncio.create_task(_both_ready(server, worker))
    await asyncio.wait({ready, serving, working}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        _greet(server, worker_settings, time.monotonic() - started)
    following = None
    if ready.done() and file is not None:
        following = asyncio.create_task(_follow(file, settings, server))
    ready.cancel()
    # The worker leaves first, while the server still records what it reports.
    await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    if following is not None:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await asyncio.gather(working, return_exceptions=True)
    stop_server.set()
    await serving
    if not working.cancelled():
        working.result()


async def _follow(file: Path, settings: ServerSettings, server: Server) -> None:
    """Keep the functions of a file deployed, until cancelled."""
    target = server.grpc_address if settings.tls is None else f"https://{server.grpc_address}"
    async with AsyncClient(target, api_key=settings.root_key.get_secret_value() or None) as client:
        try:
            await FunctionFile(
                file,
                client,
                copies=settings.data_dir / "files",
                gateway=f"{'http' if settings.tls is None else 'https'}://{server.http_address}",
                say=partial(typer.echo, err=True),
            ).follow()
        except Exception as error:  # noqa: BLE001 the server goes on without it
            complain(f"{file} is not followed any more: {error}")


def _show(function: str, written: bytes) -> None:
    """Show what the program of a function has written."""
    for line in written.decode(errors="replace").splitlines():
        typer.echo(f"{function} | {line}", err=True)


async def _both_ready(server: Server, worker: Worker) -> None:
    await server.ready.wait()
    await worker.ready.wait()


def _greet(server: Server, worker: WorkerSettings, seconds: float) -> None:
    typer.echo(
        f"homing dev is ready after {seconds:.1f} s\n"
        f"  gRPC      {server.grpc_address}\n"
        f"  HTTP      http://{server.http_address}/function/NAME, /v1/docs\n"
        f"  runs      {', '.join(worker.runtimes)}\n"
        f"  data      {worker.data_dir}\n"
        "Ctrl-C stops it."
    )


@contextmanager
def _sole_user(data_dir: Path) -> Iterator[None]:
    """Keep a second process out of the data folder: each would take the other's work for left behind."""
    lock_path = data_dir / "dev.lock"
    make_private_file(lock_path)
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HostError(f"another homing dev uses {data_dir}; choose another folder with --data-dir") from None
        yield


def _settings(kind: type[_S], values: Mapping[str, Any]) -> _S:
    known = {name: value for name, value in values.items() if name in kind.model_fields}
    try:
        return kind(**known)
    except ValidationError as error:
        raise SettingsError(explain(error)) from None
