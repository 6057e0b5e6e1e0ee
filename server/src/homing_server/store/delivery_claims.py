"""Which deliveries are due, and what goes to workers of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, case, func, select

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Callback
from homing_core import lifecycle, limits
from homing_core.destinations import FUNCTION
from homing_core.lifecycle import Delivery, Step
from homing_core.lifecycle.custody import AT_BROKER, CLAIM
from homing_core.wire.v1 import DeliveryMessage, EnvelopeBody
from homing_server.store import function_deliveries, schema
from homing_server.store.delivery_rows import LIFE, read_delivery, store_dispatched
from homing_server.store.invocation_rows import record_of, uri_of
from homing_server.store.outbox import held_by
from homing_server.store.sequences import read_counters

_deliveries = schema.deliveries
_invocations = schema.invocations

MAX_OUTSTANDING_DELIVERIES: Final = 64
"""So many deliveries to one receiver are with the workers at the most: one that hangs must not fill their hands."""

MAX_CLAIM_BYTES: Final = 16 * limits.MIB
"""Bodies of about so many bytes are taken at a time, and one at least."""

_waiting = (schema.live(_deliveries), held_by(_deliveries, CLAIM.sources))
_columns = (
    # These come first, and by other names than those of the invocation.
    *(column.label(f"delivery_{column.name}") for column in LIFE),
    _deliveries.c.id.label("delivery_id"),
    _deliveries.c.kind,
    _deliveries.c.target,
    _deliveries.c.receiver,
)
_select_due = (
    # A callback carries the result alone.
    select(
        *_columns,
        _invocations,
        case((_deliveries.c.kind != api.DELIVERY_KIND_CALLBACK, schema.payloads.c.request)).label("request"),
        schema.payloads.c.result,
    )
    .join(_invocations, _invocations.c.id == _deliveries.c.invocation_id)
    .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
    .where(*_waiting, _deliveries.c.receiver == bindparam("of"), _deliveries.c.due_us <= bindparam("now_us"))
    .order_by(_deliveries.c.due_us)
    .limit(bindparam("most"))
)
_select_outstanding = (
    select(_deliveries.c.receiver, func.count())
    .where(schema.live(_deliveries), held_by(_deliveries, AT_BROKER))
    .group_by(_deliveries.c.receiver)
)

_NO_ENVELOPES: Final[Mapping[str, Payload]] = MappingProxyType({})

Head = Callable[[str], bytes]
"""Reads the beginning of a body that is stored apart, given the id of its blob."""


@dataclass(kw_only=True, slots=True)
class Claim:
    """Deliveries that were taken from the store."""

    messages: list[DeliveryMessage] = field(default_factory=list)
    """What is to be published."""
    chained: function_deliveries.Chained = field(default_factory=function_deliveries.Chained)
    """What was carried out at once: deliveries to functions."""
    next_due_us: int | None = None
    """When the next one that there will be room for is due; None where there is none."""
    more: bool = False
    """Whether there are more to be taken now."""
    full: bool = False
    """Whether some wait until others of their receiver have left the workers."""
    taken: int = 0
    """How many were taken."""
    size: int = 0
    """The bytes of the bodies that were read for them."""


def due_by_receiver(connection: Connection) -> dict[str, int]:
    """Return by receiver when the earliest delivery that waits in the store is due.

    The index is asked for each receiver once, however many deliveries wait for it.
    """
    first = select(func.min(_deliveries.c.receiver)).where(*_waiting).scalar_subquery()
    receivers = select(first.label("receiver")).cte("receivers", recursive=True)
    following = (
        select(func.min(_deliveries.c.receiver))
        .where(*_waiting, _deliveries.c.receiver > receivers.c.receiver)
        .scalar_subquery()
    )
    receivers = receivers.union_all(select(following).where(receivers.c.receiver.is_not(None)))
    earliest = (
        select(func.min(_deliveries.c.due_us))
        .where(*_waiting, _deliveries.c.receiver == receivers.c.receiver)
        .scalar_subquery()
    )
    rows = connection.execute(select(receivers.c.receiver, earliest).where(receivers.c.receiver.is_not(None)))
    return {receiver: due_us for receiver, due_us in rows}  # noqa: C416 rows are no pairs


def claim(
    connection: Connection,
    *,
    now_us: int,
    most: int,
    head: Head,
    check: function_deliveries.CheckPassingOn,
    envelopes: Mapping[str, Payload] = _NO_ENVELOPES,
) -> Claim:
    """Take deliveries that are due, of each receiver the oldest first and no more than it may have.

    :param most: How many at the most.
    :param check: Checks whether callers still may what they asked for: that functions are invoked with outcomes.
    :param envelopes: By the id of the delivery, the envelopes that are stored apart: of deliveries to functions.
    """
    claimed = Claim()
    outstanding = {receiver: count for receiver, count in connection.execute(_select_outstanding)}  # noqa: C416 same
    signing_version = read_counters(connection)[schema.SIGNING_SEQ]
    for receiver, due_us in sorted(due_by_receiver(connection).items(), key=lambda item: item[1]):
        # What goes to a function is carried out here and now.
        to_function = receiver.startswith(FUNCTION)
        room = most if to_function else MAX_OUTSTANDING_DELIVERIES - outstanding.get(receiver, 0)
        if room <= 0:
            claimed.full = True
            continue
        if due_us > now_us:
            claimed.next_due_us = min(due_us, claimed.next_due_us or due_us)
            continue
        if claimed.taken >= most or claimed.size >= MAX_CLAIM_BYTES:
            claimed.more = True
            break
        asked = min(room, most - claimed.taken)
        rows = _take(connection.execute(_select_due, {"of": receiver, "now_us": now_us, "most": asked}), claimed)
        deliveries = [read_delivery(row[: len(LIFE)]) for row in rows]
        sent = [_dispatched(delivery, now_us=now_us) for delivery in deliveries]
        shown = _Shown(head=head, whole=to_function)
        messages = [_message(row, delivery, shown, signing_version) for row, delivery in zip(rows, sent, strict=True)]
        if to_function:
            function_deliveries.carry_out(
                connection,
                rows,
                deliveries,
                messages,
                claimed.chained,
                check=check,
                envelopes=envelopes,
                now_us=now_us,
            )
        else:
            claimed.messages += messages
            store_dispatched(connection, {row.delivery_id: each for row, each in zip(rows, sent, strict=True)})
        if len(rows) == room and not to_function:
            claimed.full = True
        elif len(rows) == asked or claimed.size >= MAX_CLAIM_BYTES:
            claimed.more = True
    return claimed


def _take(due: Iterable[Row[Any]], claimed: Claim) -> list[Row[Any]]:
    """Take rows until what is taken is large enough."""
    rows = []
    for row in due:
        rows.append(row)
        claimed.size += len(row.request or b"") + len(row.result or b"")
        if claimed.size >= MAX_CLAIM_BYTES:
            break
    claimed.taken += len(rows)
    return rows


def _dispatched(delivery: Delivery, *, now_us: int) -> Delivery:
    step = lifecycle.delivery.dispatched(delivery, time_us=now_us)
    assert isinstance(step, Step), "what the store holds can be claimed"
    return step.after


def _message(row: Row[Any], delivery: Delivery, shown: _Shown, signing_version: int) -> DeliveryMessage:
    record = record_of(row)
    result = None if row.result is None else api.Result.FromString(row.result)
    message = DeliveryMessage(
        delivery_id=row.delivery_id,
        generation=delivery.token.generation,
        kind=row.kind,
        uri=uri_of(row),
        invocation_id=row.id,
        call_id=row.call_id or "",
        function=row.function,
        state=api.InvocationState.ValueType(row.state),
        result=result,
        failure=record.failure,
        start_us=row.start_us,
        end_us=row.end_us,
        prior_attempts=delivery.counted_attempts,
        attempt_count=len(record.attempts),
        function_revision=record.attempts[-1].function_revision if record.attempts else 0,
        depth=row.depth,
        traceparent=row.traceparent,
        signing_version=signing_version,
        tried=delivery.tried,
        since_us=delivery.since_us,
    )
    if row.kind == api.DELIVERY_KIND_CALLBACK:
        message.callback.CopyFrom(Callback.FromString(row.target))
        return message
    message.request.CopyFrom(shown.request(Payload.FromString(row.request)))
    if result is not None:
        message.response.CopyFrom(shown.response(result.payload))
        if shown.whole:
            return message
        # What the envelope shows of the answer is all that it needs.
        message.result.ClearField("payload")
        message.result.ClearField("headers")
    return message


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """What envelopes show of bodies."""

    head: Head
    whole: bool
    """Whether they have the whole of an answer: it is not read here where it is stored apart."""

    def request(self, payload: Payload) -> EnvelopeBody:
        """Return what is shown of the body of the request."""
        if payload.HasField("blob"):
            data, size = self.head(payload.blob.id), payload.blob.size
        else:
            data, size = payload.data[: limits.MAX_ENVELOPE_BODY], len(payload.data)
        return EnvelopeBody(content_type=payload.content_type, data=data, size=size)

    def response(self, payload: Payload) -> EnvelopeBody:
        """Return what is shown of the body of the answer."""
        if not self.whole:
            return self.request(payload)
        size = payload.blob.size if payload.HasField("blob") else len(payload.data)
        return EnvelopeBody(content_type=payload.content_type, data=payload.data, size=size)
