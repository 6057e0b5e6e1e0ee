"""What is asked of one invocation besides its outcome: to stop, or to run again."""

from __future__ import annotations

from homing._core import check
from homing._core.calls import Unset
from homing._core.names import InvocationState
from homing._core.payload import encode_payload
from homing._core.request_id import request_id_of
from homing.errors import InvocationEndedError
from homing.v1 import invocation_service_pb2, payload_pb2


def stop_request(invocation_id: str, reason: str | None) -> invocation_service_pb2.StopInvocationRequest:
    """Return the request to stop an invocation.

    :raises TypeError: The reason is no str.
    """
    return invocation_service_pb2.StopInvocationRequest(
        id=invocation_id, reason="" if reason is None else check.text("reason", reason)
    )


def stopped_by_earlier_try(tries: int, error: InvocationEndedError) -> bool:
    """Tell whether a repeated stop was refused because a try whose answer was lost had stopped the invocation."""
    return tries > 1 and error.state is InvocationState.STOPPED


def rerun_request(
    invocation_id: str, *, payload: object, content_type: str | None, request_id: str | None
) -> invocation_service_pb2.RerunInvocationRequest:
    """Return the request to run an invocation again. It always has a request id, so it is safe to send again.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    request = invocation_service_pb2.RerunInvocationRequest(
        id=invocation_id,
        request_id=request_id_of(request_id),
    )
    if not isinstance(payload, Unset):
        request.payload.CopyFrom(encode_payload(payload, content_type) or payload_pb2.Payload())
    elif content_type is not None:
        raise check.invalid("content_type", "needs a payload")
    return request
