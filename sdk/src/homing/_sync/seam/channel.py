"""A channel of the synchronous gRPC stack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import grpc

from homing._core.settings import ALONE, ConnectionSettings

Request = TypeVar("Request")
Response = TypeVar("Response")

CHANNEL_CLOSED: Final = (ValueError,)
"""What a call raises, among other causes, when its channel was closed."""


class Channel:
    """A channel. Safe to use from several threads."""

    def __init__(self, settings: ConnectionSettings, *, alone: bool = False) -> None:
        """Prepare to connect.

        :param alone: Whether it shares its connection with no other channel.
        """
        options = (*settings.channel_options, *(ALONE if alone else ()))
        credentials = settings.credentials()
        self._channel = (
            grpc.insecure_channel(settings.target, options=options)
            if credentials is None
            else grpc.secure_channel(settings.target, credentials, options=options)
        )

    def use(self) -> grpc.Channel:
        """Return the channel of gRPC."""
        return self._channel

    def close(self) -> None:
        """Cancel its calls."""
        self._channel.close()


def upload(
    method: grpc.StreamUnaryMultiCallable[Request, Response], requests: Iterable[Request], **options: Any
) -> Response:
    """Write the requests of a call and return its response.

    :raises RpcError: It failed, as the server says.
    """
    return method(iter(requests), **options)
