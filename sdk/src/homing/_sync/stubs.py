# Generated from _aio/stubs.py by scripts/unasync.py; do not edit.
"""The stubs of the services, over one channel."""

from __future__ import annotations

from typing import NamedTuple

import grpc

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


class Stubs(NamedTuple):
    """One of each service."""

    invocations: invocation_service_pb2_grpc.InvocationServiceStub
    functions: function_service_pb2_grpc.FunctionServiceStub
    secrets: secret_service_pb2_grpc.SecretServiceStub
    keys: key_service_pb2_grpc.KeyServiceStub
    dead_letters: dead_letter_service_pb2_grpc.DeadLetterServiceStub
    logs: log_service_pb2_grpc.LogServiceStub
    payloads: payload_service_pb2_grpc.PayloadServiceStub
    signing_keys: signing_key_service_pb2_grpc.SigningKeyServiceStub


def stubs_of(channel: grpc.Channel) -> Stubs:
    """Return the stubs of a channel."""
    return Stubs(
        invocation_service_pb2_grpc.InvocationServiceStub(channel),
        function_service_pb2_grpc.FunctionServiceStub(channel),
        secret_service_pb2_grpc.SecretServiceStub(channel),
        key_service_pb2_grpc.KeyServiceStub(channel),
        dead_letter_service_pb2_grpc.DeadLetterServiceStub(channel),
        log_service_pb2_grpc.LogServiceStub(channel),
        payload_service_pb2_grpc.PayloadServiceStub(channel),
        signing_key_service_pb2_grpc.SigningKeyServiceStub(channel),
    )
