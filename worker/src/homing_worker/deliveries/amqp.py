"""Deliveries to exchanges of the broker."""

from __future__ import annotations

from homing_core.broker import Broker, BrokerError, ExchangeMessage, UnroutableError
from homing_core.destinations import DestinationError, exchange_of
from homing_core.envelope import envelope_body, event_type
from homing_core.guard import ForbiddenTargetError, Guard
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.deliveries.outcome import DELIVERED, Outcome, failed


async def publish_envelope(broker: Broker, message: DeliveryMessage, guard: Guard) -> Outcome:
    """Publish an envelope to the exchange that its destination names."""
    try:
        exchange = exchange_of(message.uri)
        guard.check_exchange(exchange.exchange, exchange.routing_key)
        await broker.publish_to_exchange(
            ExchangeMessage(
                exchange=exchange.exchange,
                routing_key=exchange.routing_key,
                body=envelope_body(message, wrapped=False),
                content_type="application/json",
                message_id=message.delivery_id,
                kind=event_type(message),
                timestamp=message.end_us // 1_000_000,
            )
        )
    except DestinationError as error:
        return failed(FailureReason.TARGET_INVALID, f"the destination {error}", retryable=False)
    except ForbiddenTargetError as error:
        return failed(FailureReason.TARGET_FORBIDDEN, f"the destination {error}", retryable=False)
    except UnroutableError as error:
        return failed(FailureReason.UNROUTABLE, str(error))
    except BrokerError as error:
        return failed(FailureReason.BROKER_UNAVAILABLE, str(error))
    return DELIVERED
