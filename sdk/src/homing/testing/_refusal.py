"""Errors as homing's server gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from homing._core.status import DETAILS_KEY


@dataclass(frozen=True, kw_only=True)
class Refusal(Exception):  # noqa: N818 - it goes to the caller as a status
    """A call that ends with an error."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    violations: Sequence[tuple[str, str]] = ()
    """The fields of the request that are at fault, each with the rule that it breaks."""

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        """End a call with it."""
        context.set_trailing_metadata(((DETAILS_KEY, self.status().SerializeToString()),))
        context.abort(self.code, self.message)
        raise AssertionError("abort has ended the call")

    def status(self) -> Status:
        """Return it as messages have it."""
        status = Status(code=self.code.value[0], message=self.message)
        status.details.add().Pack(ErrorInfo(reason=self.reason, domain="homing.dev", metadata=self.metadata))
        if self.violations:
            told = [BadRequest.FieldViolation(field=field, description=rule) for field, rule in self.violations]
            status.details.add().Pack(BadRequest(field_violations=told))
        return status


def served(method: Callable[[Any, Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    """Return the method of a service, with what a test said of it, and with errors as a server gives them."""

    def serve(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            self.state.check(method.__name__)
            return method(self, request, context)
        except Refusal as refusal:
            refusal.abort(context)

    return serve


def served_stream(method: Callable[[Any, Any, grpc.ServicerContext], Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Return the same of a method that streams."""

    def serve(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            self.state.check(method.__name__)
            yield from method(self, request, context)
        except Refusal as refusal:
            refusal.abort(context)

    return serve


def request_id_reused(request_id: str) -> Refusal:
    """Return the refusal of a call whose request id was used for another one."""
    return Refusal(
        code=grpc.StatusCode.ALREADY_EXISTS,
        reason="REQUEST_ID_REUSED",
        message=f"request_id {request_id!r} was used for another request",
        metadata={"request_id": request_id},
    )


def no_condition() -> Refusal:
    """Return the refusal of a filter that selects everything."""
    return invalid_request([("filter", "must have at least one field set")])


def invalid_request(violations: Sequence[tuple[str, str]]) -> Refusal:
    """Return the refusal of a request with fields that break rules."""
    return Refusal(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        message="; ".join(f"{field}: {rule}" for field, rule in violations),
        violations=tuple(violations),
    )
