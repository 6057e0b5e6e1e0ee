"""The stubs of the services, over one channel."""

from __future__ import annotations

from typing import NamedTuple

import grpc.aio

from homing.v1 import (
    dead_letter_service_pb2_grpc,
    function_service_pb2_grpc,
    invocation_service_pb2_grpc,
    key_service_pb2_grpc,
    log_service_pb2_grpc,
    payload_service_pb2_grpc,
    secret_service_pb2_grpc,
    signing_key_service_pb2_grpc,
)


class AsyncStubs(NamedTuple):
    """One of each service."""

    invocations: invocation_service_pb2_grpc.InvocationServiceAsyncStub
    functions: function_service_pb2_grpc.FunctionServiceAsyncStub
    secrets: secret_service_pb2_grpc.SecretServiceAsyncStub
    keys: key_service_pb2_grpc.KeyServiceAsyncStub
    dead_letters: dead_letter_service_pb2_grpc.DeadLetterServiceAsyncStub
    logs: log_service_pb2_grpc.LogServiceAsyncStub
    payloads: payload_service_pb2_grpc.PayloadServiceAsyncStub
    signing_keys: signing_key_service_pb2_grpc.SigningKeyServiceAsyncStub


def stubs_of(channel: grpc.aio.Channel) -> AsyncStubs:
    """Return the stubs of a channel."""
    return AsyncStubs(
        invocation_service_pb2_grpc.InvocationServiceStub(channel),
        function_service_pb2_grpc.FunctionServiceStub(channel),
        secret_service_pb2_grpc.SecretServiceStub(channel),
        key_service_pb2_grpc.KeyServiceStub(channel),
        dead_letter_service_pb2_grpc.DeadLetterServiceStub(channel),
        log_service_pb2_grpc.LogServiceStub(channel),
        payload_service_pb2_grpc.PayloadServiceStub(channel),
        signing_key_service_pb2_grpc.SigningKeyServiceStub(channel),
    )
