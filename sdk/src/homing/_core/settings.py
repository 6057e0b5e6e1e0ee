"""Where the server is and how it is reached."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc

from homing._core import check
from homing._core.version import __version__

DEFAULT_TARGET: Final = "localhost:50051"
DEFAULT_TIMEOUT: Final = 60.0

_HOST_PORT: Final = re.compile(r"(?:\[[^\[\]\s]+\]|[^:/@\[\]\s]+)(?::(?P<port>[^:/]*))?")
_OF_GRPC: Final = ("unix:", "unix-abstract:", "vsock:", "dns:", "ipv4:", "ipv6:", "xds:")
"""Targets that begin so are gRPC's to understand."""
_MAX_PORT: Final = 65535
_TRUTHS: Final[Mapping[str, bool]] = {"": False, "0": False, "false": False, "1": True, "true": True}

CHANNEL_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    ("grpc.primary_user_agent", f"homing-python/{__version__}"),
    # A dead peer is noticed within 40 s even when nothing is being sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # a minute by itself, whatever the former says
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC would wait up to two minutes between its own tries to connect, far longer than a server's restart takes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Payloads are bounded long before: this leaves room for the whole record around a payload and a result.
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.service_config_disable_resolution", 1),
)
ALONE: Final = (("grpc.use_local_subchannel_pool", 1),)
"""For a channel that shares its connection with no other one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """What a client needs to connect."""

    target: str
    tls: bool
    """Whether the connection is encrypted, and the server's certificate checked."""
    tls_ca: Path | None
    """The certificates to trust; None for those of the system."""
    tls_cert: Path | None
    """The certificate to show to a server that wants one."""
    tls_key: Path | None
    metadata: tuple[tuple[str, str], ...]
    timeout: float | None
    """The longest that a call may take in seconds where it does not say itself."""
    use_proxy: bool
    """Whether the proxy that the environment names is used."""

    @classmethod
    def read(
        cls,
        *,
        target: str | None,
        api_key: str | None,
        tls_ca: str | os.PathLike[str] | None,
        tls_cert: str | os.PathLike[str] | None,
        tls_key: str | os.PathLike[str] | None,
        timeout: float | timedelta | None,
        use_proxy: bool | None,
        environment: Mapping[str, str],
    ) -> ConnectionSettings:
        """Return the settings, from the environment where an argument is None.

        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        if target is None:
            target = environment.get("HOMING_TARGET") or DEFAULT_TARGET
        if api_key is None:
            api_key = environment.get("HOMING_API_KEY") or None
        if tls_ca is None:
            tls_ca = environment.get("HOMING_TLS_CA") or None
        if tls_cert is None:
            tls_cert = environment.get("HOMING_TLS_CERT") or None
        if tls_key is None:
            tls_key = environment.get("HOMING_TLS_KEY") or None
        scheme, address = _split(check.text("target", target))
        if (tls_cert is None) is not (tls_key is None):
            raise check.invalid("tls_key" if tls_key is None else "tls_cert", "must be set where the other one is")
        wants_tls = not (tls_ca is None and tls_cert is None)
        if scheme == "http" and wants_tls:
            raise check.invalid("target", "must not begin with http:// where files for TLS are given")
        if api_key is not None and not (check.text("api_key", api_key).isascii() and api_key.isprintable()):
            raise check.invalid("api_key", "must be printable ASCII")
        return cls(
            target=address,
            tls=scheme == "https" or wants_tls,
            tls_ca=None if tls_ca is None else Path(tls_ca),
            tls_cert=None if tls_cert is None else Path(tls_cert),
            tls_key=None if tls_key is None else Path(tls_key),
            metadata=() if api_key is None else (("authorization", f"Bearer {api_key}"),),
            timeout=None if timeout is None else check.timeout(timeout),
            use_proxy=_use_proxy(environment) if use_proxy is None else check.flag("use_proxy", use_proxy),
        )

    @property
    def channel_options(self) -> tuple[tuple[str, int | str], ...]:
        """The options of the channel."""
        return (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", int(self.use_proxy)))

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of the channel; None for a connection without TLS.

        :raises InvalidRequestError: A file cannot be read.
        """
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=_system_roots() if self.tls_ca is None else _read("tls_ca", self.tls_ca),
            private_key=None if self.tls_key is None else _read("tls_key", self.tls_key),
            certificate_chain=None if self.tls_cert is None else _read("tls_cert", self.tls_cert),
        )


def _split(target: str) -> tuple[str, str]:
    """Return the scheme, http, https or none, and the rest of a target.

    :raises InvalidRequestError: It is none.
    """
    scheme, _, address = target.rpartition("://")
    if scheme not in {"http", "https"}:
        # It may be one that gRPC itself knows, as in dns:///HOST:PORT.
        scheme, address = "", target
    else:
        address = address.rstrip("/")
    if scheme or not address.startswith(_OF_GRPC):
        _check_address(address, needs_port=scheme != "https")
    return scheme, address


def _check_address(address: str, *, needs_port: bool) -> None:
    """Check a host and a port.

    :raises InvalidRequestError: They are none. gRPC would try for a while to find them.
    """
    read = _HOST_PORT.fullmatch(address)
    if read is None:
        raise check.invalid("target", "must be HOST:PORT, or https://HOST:PORT for TLS")
    port = read["port"]
    if port is None and needs_port:
        raise check.invalid("target", f"must be HOST:PORT, as in {address[:255]}:50051")
    if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) <= _MAX_PORT):
        raise check.invalid("target", f"must have a port from 1 to {_MAX_PORT}, has {port[:255]!r}")


def _use_proxy(environment: Mapping[str, str]) -> bool:
    """Return what HOMING_USE_PROXY says.

    :raises InvalidRequestError: It is neither true nor false.
    """
    given = environment.get("HOMING_USE_PROXY", "").lower()
    if given not in _TRUTHS:
        raise check.invalid("HOMING_USE_PROXY", f"must be true or false, is {given!r}")
    return _TRUTHS[given]


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as err:  # a ValueError where no file can have such a name
        raise check.invalid(name, f"cannot be read: {err}") from err


def _system_roots() -> bytes | None:
    """Return the certificates that this system trusts; None for those that gRPC brings along."""
    path = ssl.get_default_verify_paths().cafile
    if path is None or "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ:
        return None
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
