"""What is told of an address that cannot be listened on: the setting that names it, the address, and why."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class ListenError(OSError):
    """An address cannot be listened on."""


@contextmanager
def listening(setting: str, address: str) -> Iterator[None]:
    """Have errors of whatever listens tell what they are about.

    :param setting: The name of the setting.
    :param address: What it says, HOST:PORT.
    :raises ListenError: It cannot be listened on there.
    """
    try:
        yield
    except OverflowError:
        raise ListenError(f"{setting}: cannot listen on {address}: there is no such port") from None
    except socket.gaierror as error:
        raise ListenError(f"{setting}: cannot listen on {address}: {error.strerror}") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ListenError(f"{setting}: cannot listen on {address}: {why}") from None
    except RuntimeError as error:  # gRPC, which keeps the reason to itself
        raise ListenError(f"{setting}: cannot listen on {address}: {_why(address) or error}") from None


def _why(address: str) -> str:
    """Return why the address cannot be bound; empty where it can."""
    host, _, port = address.rpartition(":")
    with suppress(UnicodeError):
        try:
            [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM
            )
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(where)
        except OSError as error:
            return error.strerror or str(error)
    return ""
