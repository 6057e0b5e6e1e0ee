"""What a destination's URI says of where an outcome goes, and what is refused before anything is sent."""

from __future__ import annotations

import pytest

from homing_core.destinations import (
    DestinationError,
    Exchange,
    check_destination,
    exchange_of,
    function_of,
    receiver_of,
)
from homing_core.guard import Guard

GUARD = Guard(exchanges=["orders", "e" * 127, "/queue", "/" + "q" * 255])

UNKNOWN = "must begin with https://, http://, function: or amqp:"
NO_EXCHANGE = "must be amqp:EXCHANGE/KEY; without an exchange, amqp:/QUEUE"
TOO_LONG = "must have an exchange of at most 127 bytes and a key of at most 255 bytes"
OWN = "must not be one of homing's own exchanges and queues, or of the broker's"
NAME = "must be function:NAME with a name that matches [a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org/hook",
        "http://example.org/" + "a" * 2029,
        "function:next",
        "function:" + "a" * 63,
        "amqp:orders/new",
        "amqp:orders/",
        "amqp:orders/homing.x",  # a key is no queue where there is an exchange
        "amqp:orders/a/b",
        "amqp:" + "e" * 127 + "/" + "k" * 255,
        "amqp:/queue",
        "amqp:/" + "q" * 255,
    ],
)
def test_where_an_outcome_may_go(uri: str) -> None:
    check_destination(uri, GUARD)


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("", UNKNOWN),
        ("ftp://example.org/", UNKNOWN),
        ("HTTP://example.org/", UNKNOWN),
        ("https:example.org", UNKNOWN),
        ("example.org", UNKNOWN),
        ("functions:next", UNKNOWN),
        ("http://example.org/" + "a" * 2030, "must have at most 2048 characters, has 2049"),
        ("function:" + "a" * 2040, "must have at most 2048 characters, has 2049"),
        ("function:", NAME),
        ("function:Next", NAME),
        ("function:next.team", NAME),
        ("function:next/path", NAME),
        ("function:" + "a" * 64, NAME),
        ("amqp:", NO_EXCHANGE),
        ("amqp:/", NO_EXCHANGE),
        ("amqp:orders", NO_EXCHANGE),
        ("amqp:" + "e" * 128 + "/", TOO_LONG),
        ("amqp:" + "ä" * 64 + "/", TOO_LONG),
        ("amqp:orders/" + "k" * 256, TOO_LONG),
        ("amqp:orders/" + "ä" * 128, TOO_LONG),
        ("amqp:orders/\n", "must have printable characters only"),
        ("amqp:homing.control.v1/x", OWN),
        ("amqp:/homing.events.v1", OWN),
        ("amqp:/amq.gen-1", OWN),
        ("amqp:billing/x", "names 'billing', which HOMING_AMQP_DESTINATIONS does not allow"),
        ("amqp:/orders", "names '/orders', which HOMING_AMQP_DESTINATIONS does not allow"),
        ("amqp:queue/x", "names 'queue', which HOMING_AMQP_DESTINATIONS does not allow"),
        ("http://10.0.0.1/", "leads to 10.0.0.1: a private network (10.0.0.0/8)"),
        ("https://10.0.0.1/", "leads to 10.0.0.1: a private network (10.0.0.0/8)"),
        ("https://", "has no host"),
    ],
)
def test_where_none_may_go(uri: str, rule: str) -> None:
    with pytest.raises(DestinationError) as refused:
        check_destination(uri, GUARD)
    assert str(refused.value).startswith(rule)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_what_a_uri_names() -> None:
    assert function_of("function:next") == "next"
    assert function_of("https://example.org/function:next") == ""
    assert function_of("amqp:orders/function:next") == ""
    assert exchange_of("amqp:orders/new/one") == Exchange(exchange="orders", routing_key="new/one")
    assert exchange_of("amqp:/queue") == Exchange(exchange="", routing_key="queue")
    for uri in ("orders/new", "function:next", "https://example.org/x"):
        with pytest.raises(DestinationError, match=r"^must be amqp:EXCHANGE/KEY"):
            exchange_of(uri)


@pytest.mark.parametrize(
    ("uri", "receiver"),
    [
        ("function:next", "function:next"),
        ("amqp:orders/new", "amqp:orders"),
        ("amqp:orders/old", "amqp:orders"),
        ("amqp:/queue", "amqp:/queue"),
        ("amqp:/other", "amqp:/other"),
        ("https://example.org/a?b=c", "https://example.org:443"),
        ("http://example.org/b", "http://example.org:80"),
        ("gopher://example.org/", ""),  # it was accepted when other rules were in force
    ],
)
def test_what_goes_to_one_receiver_waits_for_the_same_turn(uri: str, receiver: str) -> None:
    assert receiver_of(uri) == receiver
