"""Deploying the functions of a stack file."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import typer

import homing
from homing import Client, FunctionOptions
from homing_cli import output
from homing_cli.exits import UNAVAILABLE, exit_code
from homing_cli.functions import source_of
from homing_cli.options import connect, target_of
from homing_cli.output import complain
from homing_cli.stack.conversion import deploy_options
from homing_cli.stack.errors import StackError
from homing_cli.stack.files import read_environments
from homing_cli.stack.schema import Stack


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """Functions that are to be deployed, with all that is said of them read."""

    functions: Sequence[tuple[str, FunctionOptions]]
    ctx: typer.Context
    target: str | None
    force: bool
    json: bool

    @classmethod
    def of(cls, ctx: typer.Context, stack: Stack, *, target: str | None, force: bool, json: bool) -> Self:
        """Read what the functions of a stack file are.

        :raises StackError: A file that it names cannot be read, or it is for a server elsewhere.
        """
        if not target_of(ctx, target):
            _check_gateway(stack.gateway)
        functions = [(each.name, deploy_options(each, read_environments(each))) for each in stack.functions]
        return cls(functions=functions, ctx=ctx, target=target, force=force, json=json)

    def run(self) -> None:
        """Deploy one after the other.

        :raises typer.Exit: One was refused, which is told, and the others were deployed.
        """
        failure = 0
        with connect(self.ctx, self.target) as client:
            for place, (name, options) in enumerate(self.functions):
                try:
                    self._deploy(client, name, options)
                except homing.HomingError as error:
                    complain(f"{name}: {error}")
                    failure = failure or exit_code(error)
                    left = len(self.functions) - place - 1
                    if exit_code(error) == UNAVAILABLE and left:
                        complain(f"{output.several(left, 'function')} not tried")
                        break
        if failure:
            raise typer.Exit(failure)

    def _deploy(self, client: Client, name: str, options: FunctionOptions) -> None:
        function = client.functions.deploy(name=name, force=self.force, **options)
        if self.json:
            output.print_json(function.message)
        else:
            output.print_line(f"{function.name} is deployed, revision {function.revision}: {source_of(function)}")


def _check_gateway(gateway: str) -> None:
    """See to it that nothing is deployed here that is for elsewhere.

    What a stack file names is where a gateway has its HTTP, as `faas-cli` wants it; this command speaks gRPC.

    :raises StackError: It is for elsewhere.
    """
    try:
        host = urlsplit(gateway).hostname or ""
    except ValueError:
        raise StackError(f"provider.gateway: {output.plain(gateway)} is no URL") from None
    if host and not _is_here(host):
        raise StackError(
            f"provider.gateway: the file is for {host}: name where that serves gRPC, by --target or HOMING_TARGET"
        )


def _is_here(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified
