"""All services of the API, and their methods by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from homing.v1 import (
    dead_letter_service_pb2,
    function_service_pb2,
    invocation_service_pb2,
    key_service_pb2,
    log_service_pb2,
    payload_service_pb2,
    secret_service_pb2,
    signing_key_service_pb2,
)
from homing_server.front.api.dead_letter_service import DeadLetterService
from homing_server.front.api.function_service import FunctionService
from homing_server.front.api.invocation_service import InvocationService
from homing_server.front.api.key_service import KeyService
from homing_server.front.api.log_service import LogService
from homing_server.front.api.payload_service import PayloadService
from homing_server.front.api.secret_service import SecretService
from homing_server.front.api.signing_key_service import SigningKeyService

SERVICES: Final[tuple[ServiceDescriptor, ...]] = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (invocation_service_pb2, "InvocationService"),
        (payload_service_pb2, "PayloadService"),
        (log_service_pb2, "LogService"),
        (dead_letter_service_pb2, "DeadLetterService"),
        (function_service_pb2, "FunctionService"),
        (secret_service_pb2, "SecretService"),
        (signing_key_service_pb2, "SigningKeyService"),
        (key_service_pb2, "KeyService"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The services of the API, in the order of `SERVICES`."""

    invocations: InvocationService
    payloads: PayloadService
    logs: LogService
    dead_letters: DeadLetterService
    functions: FunctionService
    secrets: SecretService
    signing_keys: SigningKeyService
    keys: KeyService

    def __iter__(self) -> Iterator[tuple[ServiceDescriptor, object]]:
        """Iterate over the descriptions of the services and what serves them."""
        return zip(SERVICES, (getattr(self, each.name) for each in fields(self)), strict=True)
