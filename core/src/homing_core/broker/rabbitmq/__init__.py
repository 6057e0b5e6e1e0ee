"""The broker seam on RabbitMQ 3.10 to 4.x, over AMQP 0.9.1."""

from homing_core.broker.rabbitmq.broker import RabbitBroker
from homing_core.broker.rabbitmq.topology import TopologyError

__all__ = ["RabbitBroker", "TopologyError"]
