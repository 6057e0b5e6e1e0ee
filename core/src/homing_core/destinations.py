"""Where the outcome of an invocation may be sent, as its URI says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from homing_core import limits
from homing_core.gateway import own_target
from homing_core.guard import ForbiddenTargetError, Guard, read_target

FUNCTION: Final = "function:"
AMQP: Final = "amqp:"

_OWN: Final = "homing."
"""Whoever could publish there could report what never happened."""
_MAX_EXCHANGE: Final = 127
_MAX_KEY: Final = 255


class DestinationError(Exception):
    """A URI names no destination, or one that is not allowed; the message completes «the destination …»."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """An exchange of the broker, and the key that messages are routed by."""

    exchange: str
    """Empty for the default exchange, which routes to the queue that is named as the key."""
    routing_key: str


def check_destination(uri: str, guard: Guard) -> None:
    """Check a destination as far as it says by itself where it leads.

    :raises DestinationError: It is none, or not allowed.
    """
    if len(uri) > limits.MAX_URL:
        raise DestinationError(f"must have at most {limits.MAX_URL} characters, has {len(uri)}")
    if uri.startswith(FUNCTION):
        if not limits.FUNCTION_NAME.fullmatch(function_of(uri)):
            raise DestinationError(f"must be {FUNCTION}NAME with a name that matches {limits.FUNCTION_NAME.pattern}")
    elif uri.startswith(AMQP):
        exchange = exchange_of(uri)
        try:
            guard.check_exchange(exchange.exchange, exchange.routing_key)
        except ForbiddenTargetError as error:
            raise DestinationError(str(error)) from None
    elif uri.startswith(("http://", "https://")):
        try:
            guard.check_url(uri)
        except ForbiddenTargetError as error:
            raise DestinationError(str(error)) from None
    else:
        raise DestinationError("must begin with https://, http://, function: or amqp:")


def function_of(uri: str) -> str:
    """Return the function that a destination or callback names; empty where it names none.

    What goes to a function by the gateway becomes an invocation of its own, as durable as the outcome is.
    """
    if uri.startswith(FUNCTION):
        return uri.removeprefix(FUNCTION)
    target = own_target(uri)
    return target.function if target is not None else ""


def exchange_of(uri: str) -> Exchange:
    """Return the exchange that a destination names.

    :raises DestinationError: It names none.
    """
    exchange, slash, key = uri.removeprefix(AMQP).partition("/")
    if not uri.startswith(AMQP) or not slash or not (exchange or key):
        raise DestinationError("must be amqp:EXCHANGE/KEY; without an exchange, amqp:/QUEUE")
    if len(exchange.encode()) > _MAX_EXCHANGE or len(key.encode()) > _MAX_KEY:
        raise DestinationError(
            f"must have an exchange of at most {_MAX_EXCHANGE} bytes and a key of at most {_MAX_KEY} bytes"
        )
    if not uri.isprintable():
        raise DestinationError("must have printable characters only")
    if exchange.startswith(_OWN) or (not exchange and key.startswith((_OWN, "amq."))):
        raise DestinationError("must not be one of homing's own exchanges and queues, or of the broker's")
    return Exchange(exchange=exchange, routing_key=key)


def receiver_of(uri: str) -> str:
    """Return who gets what goes to a URI, as far as turns and trouble go: one host, function, exchange or queue."""
    if function := function_of(uri):
        return FUNCTION + function
    if uri.startswith(AMQP):
        exchange = uri.removeprefix(AMQP).partition("/")[0]
        # By the default exchange each queue is reached for itself.
        return AMQP + exchange if exchange else uri
    try:
        return read_target(uri).receiver
    except ForbiddenTargetError:
        # It was accepted under other rules, and is refused when it is delivered.
        return ""
