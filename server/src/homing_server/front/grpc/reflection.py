"""Server reflection, in both versions that clients ask for: v1, and v1alpha, which is the same under another name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from homing_server.front.grpc.context import Context

_ALPHA: Final = reflection_pb2.DESCRIPTOR.package
_V1: Final = "grpc.reflection.v1"
_SERVICE: Final = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
SERVICES: Final = (f"{_V1}.{_SERVICE.name}", _SERVICE.full_name)


def add_reflection(services: Sequence[str], server: grpc.aio.Server) -> None:
    """Describe services on a server, and reflection itself."""
    pool = descriptor_pool.Default()
    _add_v1(pool)
    # Its stubs take the iterator for a coroutine.
    servicer: Any = reflection.aio.ReflectionServicer((*services, *SERVICES), _Members(pool))

    async def reflect(
        requests: AsyncIterator[Message], context: Context
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        async for response in servicer.ServerReflectionInfo(_as_alpha(requests), context):
            yield response

    handler = grpc.stream_stream_rpc_method_handler(
        reflect,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in SERVICES:
        handlers = {method.name: handler for method in _SERVICE.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


class _Members:
    """A pool of descriptors in which what belongs to a message or service is found by its name too: fields, methods."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 as pools name it
        """Return the file that defines a symbol.

        :raises KeyError: None does.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            parent, _, member = symbol.rpartition(".")
            file = self._pool.FindFileContainingSymbol(parent)
            if member not in self._members(parent):
                raise
            return file

    def _members(self, name: str) -> set[str]:
        for find, kinds in (
            (self._pool.FindServiceByName, ("methods_by_name",)),
            (self._pool.FindMessageTypeByName, ("fields_by_name", "oneofs_by_name")),
            (self._pool.FindEnumTypeByName, ("values_by_name",)),
        ):
            try:
                found = find(name)
            except KeyError:
                continue
            return {member for kind in kinds for member in getattr(found, kind)}
        return set()


async def _as_alpha(requests: AsyncIterator[Message]) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    async for request in requests:
        yield reflection_pb2.ServerReflectionRequest.FromString(request.SerializeToString())


def _add_v1(pool: DescriptorPool) -> None:
    """Add the description of v1, for which there is no package: it is that of v1alpha under another name."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = _V1
    for field in (field for message in file.message_type for field in message.field if field.type_name):
        field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{_V1}.")
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_V1}.")
        method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_V1}.")
    pool.AddSerializedFile(file.SerializeToString())
