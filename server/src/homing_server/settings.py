"""The settings of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from homing_core.sealing import key_of_text
from homing_core.settings import CommonSettings, ListenAddress
from homing_core.tls import TlsFiles

_ROOT_KEY_CHARACTERS = 32
"""So many characters make guessing hopeless."""

DataUrl = Annotated[str, StringConstraints(pattern=r"^(https?://[^/?#\s]+[^?#\s]*)?$")]


def _check_secret_key(value: SecretStr) -> SecretStr:
    if value.get_secret_value():
        key_of_text(value.get_secret_value())
    return value


def _check_root_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if key and not (len(key) >= _ROOT_KEY_CHARACTERS and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"must have at least {_ROOT_KEY_CHARACTERS} characters, printable ASCII without spaces")
    return value


class ServerSettings(CommonSettings):
    """The homing server. Every option can be given as an environment variable too: HOMING_GRPC_LISTEN and so on."""

    grpc_listen: ListenAddress = Field(
        default="127.0.0.1:50051", description="Where gRPC is served: host:port; port 0 takes a free one."
    )
    http_listen: ListenAddress = Field(
        default="127.0.0.1:8080",
        description="Where HTTP is served: functions, OpenFaaS's administration, REST, health, metrics and, for"
        " workers, large bodies: host:port; port 0 takes a free one.",
    )
    data_url: DataUrl = Field(
        default="",
        description="How workers reach http_listen: http://HOST:PORT, or https:// where it is served over TLS, or a"
        " proxy ends it. The default is http_listen itself, which workers on other hosts may not reach.",
    )
    allow_unauthenticated: bool = Field(
        default=False,
        description="Serve without authentication on addresses other than loopback. Everyone who reaches them"
        " can deploy functions.",
    )
    root_key: Annotated[SecretStr, AfterValidator(_check_root_key)] = Field(
        default=SecretStr(""),
        description="A secret of at least 32 characters that is an API key with all scopes; turns authentication on."
        " Better given as HOMING_ROOT_KEY than as an option, which others on this host can see.",
    )
    authenticate: bool = Field(
        default=False,
        description="Ask everybody for an API key; needs a root key, or one in the store with the scope admin.",
    )
    tls_cert: Path | None = Field(
        default=None,
        description="A PEM file with the certificate of this server, and those between it and its authority: gRPC and"
        " HTTP are served over TLS.",
    )
    tls_key: Path | None = Field(default=None, description="A PEM file with the key of tls_cert.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="A PEM file with certificates: clients, and workers, must show one that these vouch for (mTLS).",
    )
    compress_responses: bool = Field(
        default=False,
        description="Send gRPC responses compressed by gzip to the clients that accept it: where the way to them is"
        " slow. Compressed requests are taken in any case.",
    )
    store_url: str = Field(
        default="", description="The database: sqlite:///PATH. The default is homing.db in the data folder."
    )
    secret_key: Annotated[SecretStr, AfterValidator(_check_secret_key)] = Field(
        default=SecretStr(""),
        description="The key that secrets and signing keys are encrypted with in the store: 32 bytes in base64. Better"
        " given as HOMING_SECRET_KEY than as an option, which others on this host can see. The default is the file"
        " secret.key in the data folder, made at the first start. All servers of a store need the same key.",
    )
    former_secret_key: Annotated[SecretStr, AfterValidator(_check_secret_key)] = Field(
        default=SecretStr(""),
        description="The key that the store was encrypted with so far, in base64: at this start all is encrypted anew"
        " with secret_key. No other server of the store may run meanwhile.",
    )
    sync_timeout: float = Field(
        default=300, gt=0, le=86400, description="How many seconds a call of Invoke without a deadline waits."
    )
    resend_after: float = Field(
        default=10,
        gt=0,
        description="After how many seconds an accepted invocation that was never confirmed by the broker"
        " is published again.",
    )
    republish_all: bool = Field(
        default=False,
        description="At this start, take for lost whatever the store believes to be at the broker, and publish it anew:"
        " for a store that was restored from a backup, or a broker that has lost its queues. No worker may run then.",
    )
    take_over_broker: bool = Field(
        default=False,
        description="At this start, make the virtual host this store's although it is another one's: for a new store"
        " in the place of one that is lost. No server of the other one may run any more.",
    )
    conservation_interval: float = Field(
        default=5, gt=0, description="How many seconds pass between two counts of what is there against what went in."
    )
    lease_grace: float = Field(
        default=60,
        gt=0,
        description="How many seconds workers have, after the server or the broker was away, to say that they still"
        " run what has left the broker; what nobody answers for then runs again.",
    )
    drain_timeout: float = Field(
        default=30, ge=0, description="How many seconds calls may take to end when the server is told to stop."
    )

    @property
    def authentication(self) -> bool:
        """Whether callers need an API key."""
        return self.authenticate or bool(self.root_key.get_secret_value())

    @property
    def tls(self) -> TlsFiles | None:
        """The files for TLS; None where it is served without."""
        files = TlsFiles(
            prefix="HOMING_TLS",
            cert=self.tls_cert,
            key=self.tls_key,
            ca=self.tls_client_ca,
            ca_setting="CLIENT_CA",
        )
        return files if files.cert or files.key or files.ca else None

    @property
    def secret_key_file(self) -> Path:
        """Return the file of the key where it is not given."""
        return self.data_dir / "secret.key"

    @property
    def blob_dir(self) -> Path:
        """Return the folder of large bodies."""
        return self.data_dir / "blobs"

    @property
    def database_url(self) -> str:
        """Return the database to use."""
        return self.store_url or f"sqlite:///{self.data_dir / 'homing.db'}"
