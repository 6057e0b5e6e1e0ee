"""Deliveries to functions: each becomes an invocation, in the transaction that settles it, so exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing.v1.payload_pb2 import Header, Payload
from homing_core import lifecycle, limits
from homing_core.destinations import function_of
from homing_core.envelope import duration_of, envelope_body, function_status
from homing_core.gateway import own_target
from homing_core.ids import new_id
from homing_core.lifecycle import Delivery, Effect, Step
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import DeliveryMessage
from homing_server.errors import ApiError
from homing_server.store import schema
from homing_server.store.accept import Draft, insert_drafts, max_age_us
from homing_server.store.dead_letters import DeadDelivery, add_deliveries
from homing_server.store.delivery_rows import store_deliveries

ENVELOPE_TYPE: Final = "application/json"

CheckPassingOn = Callable[[Connection, str, Function], None]
"""Checks that a function may be invoked with an outcome in the name of a caller who wished so; raises ApiError."""


@dataclass(kw_only=True, slots=True)
class Chained:
    """What became of deliveries to functions."""

    caused: list[str] = field(default_factory=list)
    """The functions that were invoked, one for each invocation."""
    dead: int = 0
    """How many deliveries came to nothing."""
    settled: list[str] = field(default_factory=list)
    """The ids of those that were carried out, or came to nothing."""
    too_large: list[DeliveryMessage] = field(default_factory=list)
    """Those whose envelopes are too large for a row: they are carried out once these are stored apart."""


def carry_out(
    connection: Connection,
    rows: Sequence[Row[Any]],
    deliveries: Sequence[Delivery],
    messages: Sequence[DeliveryMessage],
    chained: Chained,
    *,
    check: CheckPassingOn,
    envelopes: Mapping[str, Payload],
    now_us: int,
) -> None:
    """Invoke the function that deliveries go to, with the envelopes as payloads.

    :param rows: The invocations whose outcome is delivered, all to one function.
    :param deliveries: The deliveries, which the store holds.
    :param messages: What a worker would get of them, with the answers as they are kept.
    :param chained: What came of it is added here.
    :param check: Checks whether callers still may what they asked for; where a function's own destinations say so, they
        did not.
    :param envelopes: By the id of the delivery, the envelopes that are stored apart.
    """
    name = function_of(messages[0].uri)
    function = _function(connection, name)
    drafts: list[Draft] = []
    settled: dict[str, Delivery] = {}
    dead: list[DeadDelivery] = []
    refusals: dict[str, api.Failure | None] = {}
    for row, delivery, message in zip(rows, deliveries, messages, strict=True):
        failure = _obstacle(name, function, message)
        if failure is None and function is not None and _is_callers(row):
            if row.caller not in refusals:
                refusals[row.caller] = _refusal(connection, row.caller, function, check)
            failure = refusals[row.caller]
        if failure is None:
            assert function is not None, "its absence is an obstacle"
            payload = envelopes.get(message.delivery_id) or _payload(message)
            if payload is None:
                chained.too_large.append(message)
                continue
            draft = _draft(row, message, function, payload, now_us=now_us)
            drafts.append(draft)
            step = lifecycle.delivery.invoked(delivery, invocation_id=draft.id, time_us=now_us)
        else:
            step = lifecycle.delivery.not_invoked(delivery, failure=failure, time_us=now_us)
        assert isinstance(step, Step), "what the store holds can be carried out"
        settled[message.delivery_id] = step.after
        if Effect.MAKE_DEAD_LETTER in step.effects:
            dead.append(DeadDelivery(id=message.delivery_id, invocation_id=row.id, function=row.function))
    if drafts:
        assert function is not None, "its absence is an obstacle"
        insert_drafts(connection, drafts, {name: function.revision})
        chained.caused += [name] * len(drafts)
    store_deliveries(connection, settled)
    chained.settled += settled
    chained.dead += len(dead)
    add_deliveries(connection, dead, now_us=now_us)


def _function(connection: Connection, name: str) -> Function | None:
    query = select(schema.functions.c.definition).where(
        schema.functions.c.name == name, schema.functions.c.deleted.is_(False)
    )
    definition = connection.execute(query).scalar_one_or_none()
    return None if definition is None else Function.FromString(definition)


def _obstacle(name: str, function: Function | None, message: DeliveryMessage) -> api.Failure | None:
    """Return why a delivery cannot become an invocation; None where it can."""
    if function is None:
        return api.Failure(reason=FailureReason.FUNCTION_NOT_FOUND, message=f"there is no function {name!r}")
    if message.depth >= limits.MAX_DEPTH:
        words = f"the chain of invocations that cause each other has {limits.MAX_DEPTH} already: it ends here"
        return api.Failure(reason=FailureReason.DEPTH_EXCEEDED, message=words)
    return None


def _is_callers(row: Row[Any]) -> bool:
    """Tell whether the caller has chosen where the outcome goes, and not whoever deployed the function."""
    if row.kind == api.DELIVERY_KIND_CALLBACK:
        return True
    spec = api.InvocationSpec.FromString(row.spec)
    return bool(spec.on_success if row.kind == api.DELIVERY_KIND_ON_SUCCESS else spec.on_failure)


def _refusal(connection: Connection, caller: str, function: Function, check: CheckPassingOn) -> api.Failure | None:
    """Return why a function may not be invoked in the name of a caller; None where it may."""
    try:
        check(connection, caller, function)
    except ApiError as error:
        words = f"{function.name!r} is not invoked for {caller!r} any more: {error.message}"
        return api.Failure(reason=FailureReason.NOT_ALLOWED, message=words)
    return None


def _payload(message: DeliveryMessage) -> Payload | None:
    """Return what the function gets: the output that was called back with, else the envelope.

    None where that is too large for a row.
    """
    if message.kind == api.DELIVERY_KIND_CALLBACK:
        return message.result.payload
    if message.result.payload.HasField("blob"):
        return None
    data = envelope_body(message, wrapped=False)
    return Payload(content_type=ENVELOPE_TYPE, data=data) if len(data) <= limits.MAX_INLINE_PAYLOAD else None


def _callback_headers(message: DeliveryMessage) -> list[Header]:
    """Return the headers of the answer, those apart that were asked for otherwise, and what tells of its function."""
    own = {
        "x-function-name": message.function,
        "x-function-status": str(function_status(message)),
        "x-duration-seconds": f"{duration_of(message):f}",
    }
    asked = list(message.callback.headers)
    told = {"content-type", *own, *(header.name.lower() for header in asked)}
    kept = [header for header in message.result.headers if header.name not in told]
    return [*kept, *asked, *(Header(name=name, value=value) for name, value in own.items())]


def _draft(row: Row[Any], message: DeliveryMessage, function: Function, payload: Payload, *, now_us: int) -> Draft:
    spec = api.InvocationSpec(function=function.name, payload=payload, call_id=row.call_id or row.id)
    target = own_target(message.uri)
    if target is not None:
        spec.http.path, spec.http.query = target.path, target.query
    if message.kind == api.DELIVERY_KIND_CALLBACK:
        spec.http.headers.extend(_callback_headers(message))
    return Draft(
        id=new_id(now_us),
        spec=spec,
        record=lifecycle.invocation.accepted(time_us=now_us, due_us=now_us),
        caller=row.caller,
        request_id="",
        fingerprint=b"",
        create_us=now_us,
        start_by_us=now_us + max_age_us(spec, function),
        traceparent=row.traceparent,
        caused_by=row.id,
        depth=message.depth + 1,
    )
