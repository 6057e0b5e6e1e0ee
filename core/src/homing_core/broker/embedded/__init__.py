"""The broker seam within one process: for `homing dev`, tests and laptops."""

from homing_core.broker.embedded.broker import EmbeddedBroker
from homing_core.broker.embedded.exchange import Exchange

__all__ = ["EmbeddedBroker", "Exchange"]
