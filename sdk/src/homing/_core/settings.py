"""Where the server is and how it is reached."""

from __future__ import annotations

import os
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

CHANNEL_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    ("grpc.primary_user_agent", f"homing-python/{__version__}"),
    # A dead peer is noticed within 40 s even when nothing is being sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC would wait up to two minutes between its own tries to connect, far longer than a server's restart takes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Payloads are bounded long before: this leaves room for the whole record around a payload and a result.
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.service_config_disable_resolution", 1),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """What a client needs to connect."""

    target: str
    tls_ca: Path | None
    metadata: tuple[tuple[str, str], ...]
    timeout: float | None
    """The longest that a call may take in seconds where it does not say itself."""

    @classmethod
    def read(
        cls,
        *,
        target: str | None,
        api_key: str | None,
        tls_ca: str | os.PathLike[str] | None,
        timeout: float | timedelta | None,
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
        if not check.text("target", target):
            raise check.invalid("target", "must be HOST:PORT, is empty")
        if api_key is not None and not (check.text("api_key", api_key).isascii() and api_key.isprintable()):
            raise check.invalid("api_key", "must be printable ASCII")
        return cls(
            target=target,
            tls_ca=None if tls_ca is None else Path(tls_ca),
            metadata=() if api_key is None else (("authorization", f"Bearer {api_key}"),),
            timeout=None if timeout is None else check.seconds("timeout", timeout, zero=False),
        )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of the channel; None for a connection without TLS.

        :raises InvalidRequestError: The file of the certificate authority cannot be read.
        """
        if self.tls_ca is None:
            return None
        try:
            authority = self.tls_ca.read_bytes()
        except OSError as err:
            raise check.invalid("tls_ca", f"cannot be read: {err}") from err
        return grpc.ssl_channel_credentials(root_certificates=authority)
