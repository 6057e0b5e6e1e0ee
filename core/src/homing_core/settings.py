"""What the settings of server and worker have in common."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import ipaddress
import os
import re
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSettingsSource, SettingsConfigDict

from homing_core.guard import DEFAULT_PORTS, GATEWAY, ForbiddenTargetError, Guard, check_host
from homing_core.tls import TlsError, TlsFiles

LogLevel = Literal["debug", "info", "warning", "error"]
BrokerUrl = Annotated[str, StringConstraints(pattern=r"^amqps?://")]


PREFIX: Final = "HOMING_"
"""What the names of settings in the environment begin with."""

_LISTEN: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):(?P<port>[0-9]{1,5})")
_MAX_PORT: Final = 65535
_SERVICE_LINK: Final = re.compile(r"HOMING_(.*_)?(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_.*|PORT|PORT_[0-9]+_.*)")
"""What Kubernetes puts into the environment where a service is called homing, or homing-something."""

_OF_OTHERS: Final = frozenset(
    # Of clients, of commands, and of the scripts of the project.
    {"API_KEY", "TARGET", "TLS_CA", "TLS_CERT", "TLS_KEY", "USE_PROXY", "SECRETS_DIR", "BASE_IMAGE"}
    # Of servers.
    | {"ALLOW_UNAUTHENTICATED", "AUTHENTICATE", "COMPRESS_RESPONSES", "CONSERVATION_INTERVAL", "DATA_URL"}
    | {"FORMER_SECRET_KEY", "GRPC_LISTEN", "HTTP_LISTEN", "LEASE_GRACE", "REPUBLISH_ALL", "RESEND_AFTER"}
    | {"ROOT_KEY", "SECRET_KEY", "STORE_URL", "SYNC_TIMEOUT", "TAKE_OVER_BROKER", "TLS_CLIENT_CA"}
    # Of workers.
    | {"COMMAND_USERS", "CONTAINER_MEMORY", "CONTAINER_NETWORK", "CONTAINER_PIDS", "CONTAINER_USER"}
    | {"DELIVERY_DELAYS", "DOCKER_URL", "LEASE_AFTER", "LEASE_TERM", "METRICS_LISTEN", "PROGRESS_LISTEN"}
    | {"PROGRESS_URL", "PULL_TIMEOUT", "RUNTIME", "START_TIMEOUT", "STOP_GRACE", "WORKER_NAME"}
    # Of both, with those that every process has.
    | {"DRAIN_TIMEOUT"}
)
"""The settings of homing's other programs, which one environment may hold beside those of this process."""

_NEAR: Final = 0.8
"""Names that are alike to this degree, of 1, may be meant: all begin alike, so less would say nothing."""

LOOPBACK: Final = "127.0.0.0/8,::1/128"
"""The networks of this host, as settings have them."""


def parts_of(value: str) -> tuple[str, ...]:
    """Return the parts of a setting that is a comma-separated list."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _each(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator of lists, given what raises ValueError where a part is wrong."""

    def validate(value: str) -> str:
        for part in parts_of(value):
            check(part)
        return value

    return validate


def _check_host(host: str) -> None:
    try:
        check_host(host.lower().removeprefix("*."))
    except ForbiddenTargetError:
        raise ValueError("must be names of hosts, or suffixes as in *.example.org") from None


def _check_port(port: str) -> None:
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("must be numbers from 1 to 65535")


def _check_exchange(name: str) -> None:
    if name != "*" and "*" in name:
        raise ValueError("must be whole names of exchanges, or of queues as in /jobs; or * for all")
    if name.strip("/").startswith("homing.") or name == "/":
        raise ValueError("must not be one of homing's own exchanges and queues")


def check_listen(value: str) -> str:
    """Check where something is to be served: HOST:PORT, with brackets around an IPv6 address.

    :raises ValueError: It is no such address.
    """
    read = _LISTEN.fullmatch(value)
    if read is None:
        example = f"127.0.0.1:{value}" if value.isascii() and value.isdecimal() else "127.0.0.1:9000"
        raise ValueError(f"must be HOST:PORT, as in {example}")
    if int(read["port"]) > _MAX_PORT:
        raise ValueError(f"must have a port from 0 to {_MAX_PORT}, has {read['port']}")
    return value


ListenAddress = Annotated[str, AfterValidator(check_listen)]


def default_data_dir() -> Path:
    """Return the folder for data of a user who named none."""
    return Path.home() / ".local" / "share" / "homing"


class CommonSettings(BaseSettings):
    """Settings are read from environment variables that start with HOMING_, or given as command-line options."""

    model_config = SettingsConfigDict(
        env_prefix="HOMING_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        extra="ignore",
        frozen=True,
    )

    broker_url: BrokerUrl = Field(
        default="amqp://guest:guest@127.0.0.1:5672/%2F",
        description="The RabbitMQ to use: amqp[s]://user:password@host:port/vhost.",
    )
    broker_tls_ca: Path | None = Field(
        default=None,
        description="A PEM file with the certificates to trust, where broker_url begins with amqps://; by default those"
        " of the system.",
    )
    broker_tls_cert: Path | None = Field(
        default=None, description="A PEM file with the certificate to show to RabbitMQ, where it wants one."
    )
    broker_tls_key: Path | None = Field(default=None, description="A PEM file with the key of broker_tls_cert.")
    data_dir: Path = Field(default_factory=default_data_dir, description="The folder for data of this process.")
    log_level: LogLevel = Field(default="info", description="The least level of log lines that are written.")
    callback_networks: Annotated[str, AfterValidator(_each(ipaddress.ip_network))] = Field(
        default="",
        description="Networks that callbacks and destinations may go to besides public addresses, comma-separated, as"
        f" in {LOOPBACK}; at any port. Give servers and workers the same.",
    )
    callback_hosts: Annotated[str, AfterValidator(_each(_check_host))] = Field(
        default="",
        description="Hosts that callbacks and destinations may go to wherever their names lead, comma-separated, as in"
        " hooks.internal,*.cluster.local; at any port.",
    )
    callback_ports: Annotated[str, AfterValidator(_each(_check_port))] = Field(
        default=",".join(map(str, DEFAULT_PORTS)),
        description="The ports of other hosts that callbacks and destinations may go to, comma-separated.",
    )
    amqp_destinations: Annotated[str, AfterValidator(_each(_check_exchange))] = Field(
        default="",
        description="The exchanges that destinations as amqp:EXCHANGE/KEY may name, and queues, as /QUEUE, those as"
        " amqp:/QUEUE; comma-separated; * for all. By default none. Give servers and workers the same.",
    )
    function_networks: Annotated[str, AfterValidator(_each(ipaddress.ip_network))] = Field(
        default="",
        description="Networks that functions' URLs may lead to besides public addresses, comma-separated, as in"
        " 10.1.0.0/16. Give servers and workers the same.",
    )
    function_hosts: Annotated[str, AfterValidator(_each(_check_host))] = Field(
        default="",
        description="Hosts that functions' URLs may have wherever their names lead, comma-separated, as in"
        " orders.internal,*.cluster.local. Give servers and workers the same.",
    )

    @property
    def broker_tls(self) -> ssl.SSLContext | None:
        """How RabbitMQ is checked; None for a connection without TLS.

        :raises TlsError: A file cannot be used, or is given for a connection without TLS.
        """
        files = TlsFiles(
            prefix="HOMING_BROKER_TLS", ca=self.broker_tls_ca, cert=self.broker_tls_cert, key=self.broker_tls_key
        )
        if self.broker_url.startswith("amqps://"):
            return files.client_context()
        if files.ca or files.cert or files.key:
            raise TlsError("HOMING_BROKER_TLS_CA, _CERT and _KEY are for a HOMING_BROKER_URL that begins with amqps://")
        return None

    @property
    def function_guard(self) -> Guard:
        """What decides where functions that are URLs may be."""
        return Guard(
            networks=[ipaddress.ip_network(part) for part in parts_of(self.function_networks)],
            hosts=parts_of(self.function_hosts),
            ports=None,
            settings="HOMING_FUNCTION_NETWORKS and _HOSTS",
        )

    @property
    def delivery_guard(self) -> Guard:
        """What decides where deliveries may go."""
        return Guard(
            networks=[ipaddress.ip_network(part) for part in parts_of(self.callback_networks)],
            hosts=[GATEWAY, *parts_of(self.callback_hosts)],
            ports=[int(part) for part in parts_of(self.callback_ports)],
            exchanges=parts_of(self.amqp_destinations),
            settings="HOMING_CALLBACK_NETWORKS, _HOSTS and _PORTS",
        )


S = TypeVar("S", bound=CommonSettings)


def settings_of_process(kind: type[S], program: str) -> S:
    """Read the settings of this process from its options and environment; end it with a message where they are bad.

    `--help` and `--version` end it too. The program has the name of its distribution.
    """
    parser = argparse.ArgumentParser(prog=program, description=kind.__doc__)
    parser.add_argument(
        "--version",
        action="version",
        version=f"{program} {importlib.metadata.version(program)}",
        help="print the version and exit",
    )
    try:
        settings = CliApp.run(kind, cli_settings_source=CliSettingsSource(kind, root_parser=parser))
    except ValidationError as error:
        sys.exit(f"{program}: {explain(error)}")
    for warning in unknown_settings(os.environ, kind):
        print(f"{program}: {warning}", file=sys.stderr)  # noqa: T201 - before there is a log
    return settings


def unknown_settings(environment: Mapping[str, str], *kinds: type[CommonSettings]) -> list[str]:
    """Return what is to be said of variables that are named as settings and are none: they are not heard.

    :param environment: The variables.
    :param kinds: The settings of this process.
    """
    own = [PREFIX + name.upper() for kind in kinds for name in kind.model_fields]
    known = {*own, *(PREFIX + name for name in _OF_OTHERS)}
    unknown = [
        name
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name)
    ]
    near = {name: difflib.get_close_matches(name, own, n=1, cutoff=_NEAR) for name in unknown}
    return [f"{name} is no setting" + "".join(f"; is {one} meant?" for one in near[name]) for name in unknown]


def explain(error: ValidationError) -> str:
    """Return what is wrong with settings, in one line that names each of them but not its value: it may be secret."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()
    )
