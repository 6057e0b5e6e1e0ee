"""The one seam between homing and what moves its messages."""

from homing_core.broker.seam import (
    Broker,
    BrokerError,
    BrokerUnavailableError,
    Consumer,
    Depth,
    ExchangeMessage,
    ForeignBrokerError,
    Handler,
    MessageTooLargeError,
    Outgoing,
    PublishRefusedError,
    PublishUnknownError,
    Received,
    UnroutableError,
)

__all__ = [
    "Broker",
    "BrokerError",
    "BrokerUnavailableError",
    "Consumer",
    "Depth",
    "ExchangeMessage",
    "ForeignBrokerError",
    "Handler",
    "MessageTooLargeError",
    "Outgoing",
    "PublishRefusedError",
    "PublishUnknownError",
    "Received",
    "UnroutableError",
]
