"""The lists and maps of the API's requests, found by reflection, and requests with more entries than they may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from support.scripted_server import SERVICES


@dataclass(frozen=True, kw_only=True)
class Place:
    """A list or map of a request."""

    method: MethodDescriptor
    path: Sequence[FieldDescriptor]
    """The fields that lead to it, itself the last."""

    @property
    def field(self) -> FieldDescriptor:
        return self.path[-1]

    @property
    def name(self) -> str:
        """Return its path as a BadRequest has it; of lists that lead to it the first item is meant."""
        return ".".join(field.name + ("[0]" if is_list(field) else "") for field in self.path[:-1]) + (
            f".{self.field.name}" if len(self.path) > 1 else self.field.name
        )

    def request(self, number: int) -> Message:
        """Return a request with so many entries there."""
        request = GetMessageClass(self.method.input_type)()
        message: Any = request
        for field in self.path[:-1]:
            message = getattr(message, field.name)
            message = message.add() if is_list(field) else message
            if not is_list(field):
                message.SetInParent()
        entries = getattr(message, self.field.name)
        if is_map(self.field):
            for index in range(number):
                entries[f"k{index}"] = ""
        elif self.field.message_type is not None:
            for _ in range(number):
                entries.add()
        else:
            entries.extend(["x"] * number if self.field.type == FieldDescriptor.TYPE_STRING else [1] * number)
        return request


def methods() -> Iterator[MethodDescriptor]:
    """Yield the methods of all services."""
    for service in SERVICES:
        yield from service.methods


def places() -> list[Place]:
    """Return all lists and maps of all requests."""
    return [Place(method=method, path=path) for method in methods() for path in _paths(method.input_type)]


def is_list(field: FieldDescriptor) -> bool:
    return isinstance(field.default_value, list) and not is_map(field)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _paths(descriptor: Descriptor) -> Iterator[list[FieldDescriptor]]:
    for field in descriptor.fields:
        if is_list(field) or is_map(field):
            yield [field]
        if field.message_type is not None and not is_map(field):
            for path in _paths(field.message_type):
                yield [field, *path]
