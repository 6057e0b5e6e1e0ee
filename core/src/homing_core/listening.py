"""What is told of an address that cannot be listened on: the setting that names it, the address, and why."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


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
    except UnicodeError:
        raise ListenError(f"{setting}: cannot listen on {address}: this is no name of a host") from None
    except socket.gaierror as error:
        raise ListenError(f"{setting}: cannot listen on {address}: {error.strerror}") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ListenError(f"{setting}: cannot listen on {address}: {why}") from None
    except RuntimeError as error:
        raise ListenError(f"{setting}: cannot listen on {address}: {error}") from None


def probe(address: str) -> None:
    """Bind an address for a moment, for the sake of a library that keeps to itself why it cannot.

    :param address: HOST:PORT. Of a host with several addresses one that can be bound is enough.
    :raises OSError: It cannot be bound.
    :raises UnicodeError: The host cannot be a name.
    """
    host, _, port = address.rpartition(":")
    refused = OSError()
    for family, kind, protocol, _, where in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM):
        try:
            with socket.socket(family, kind, protocol) as tried:
                # As servers do: connections of an earlier process that linger are no obstacle.
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(where)
        except OSError as error:
            refused = error
        else:
            return
    raise refused
