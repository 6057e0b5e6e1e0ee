"""The messages that travel over AMQP."""
