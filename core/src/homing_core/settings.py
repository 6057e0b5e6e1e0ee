"""What the settings of server and worker have in common."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

LogLevel = Literal["debug", "info", "warning", "error"]
BrokerUrl = Annotated[str, StringConstraints(pattern=r"^amqps?://")]


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
    data_dir: Path = Field(default_factory=default_data_dir, description="The folder for data of this process.")
    log_level: LogLevel = Field(default="info", description="The least level of log lines that are written.")


S = TypeVar("S", bound=CommonSettings)


def settings_of_process(kind: type[S], program: str) -> S:
    """Read the settings of this process from its options and environment; end it with a message where they are bad."""
    try:
        return CliApp.run(kind)
    except ValidationError as error:
        sys.exit(f"{program}: {explain(error)}")


def explain(error: ValidationError) -> str:
    """Return what is wrong with settings, in one line that names each of them but not its value: it may be secret."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
