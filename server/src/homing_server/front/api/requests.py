"""Reads requests: bytes that anybody may have sent become messages, at a cost that is bounded before it is paid.

gRPC hands over what came as it came, once it is known who calls. A few bytes may stand for very much: compressed ones
for a thousand times as many, and two of them for a message of their own, which takes a hundred in memory. So what is
compressed is unpacked up to the limit of its method and no further, the parts of a large message are counted before
they are made, and large messages are read one after the other and not on the event loop, which serves everybody.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, Union

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from homing_core.limits import KIB, MIB
from homing_server.errors import ApiError, Code, ErrorReason, server_busy

R = TypeVar("R")
T = TypeVar("T")

MAX_MESSAGE: Final = 16 * MIB
"""What a message takes at the most, whatever it is of, and as it travels."""

_DEFAULT_BYTES: Final = 256 * KIB
_BYTES: Final[Mapping[str, int]] = {
    # What is too large by little shall reach the checks, which name the field and its limit.
    "homing.v1.InvocationService.Invoke": 4 * MIB,
    "homing.v1.InvocationService.InvokeStream": 4 * MIB,
    "homing.v1.InvocationService.InvokeAsync": 4 * MIB,
    "homing.v1.InvocationService.RerunInvocation": 4 * MIB,
    "homing.v1.InvocationService.BatchInvokeAsync": MAX_MESSAGE,
    "homing.v1.PayloadService.WritePayload": 4 * MIB,
    "homing.v1.FunctionService.DeployFunction": 4 * MIB,
}
"""By method, how many bytes a request has at the most when it is not compressed."""
_DEFAULT_PARTS: Final = 5_000
_PARTS: Final[Mapping[str, int]] = {"homing.v1.InvocationService.BatchInvokeAsync": 100_000}
"""By method, how many fields a request sets at the most, with those of the messages in it."""

_GZIP: Final = b"\x1f\x8b"
"""How gzip begins, and no message does: it would be a field of a kind that there is not."""
_SMALL_BYTES: Final = 64 * KIB
"""So little is read at once."""
_WAITING: Final = 100
"""So many large messages at the most wait to be read."""

_Shape = dict[int, Union["_Shape", None]]
"""What has to be looked into to count the parts of a message: by field, the shape of the message there, or None where
there are packed numbers."""


def max_bytes(method: str) -> int:
    """Return how many bytes a request has at the most.

    :param method: With dots, as `homing.v1.InvocationService.Invoke`.
    """
    return _BYTES.get(method, _DEFAULT_BYTES)


def max_parts(method: str) -> int:
    """Return how many fields a request sets at the most, with those of the messages in it."""
    return _PARTS.get(method, _DEFAULT_PARTS)


class Readers:
    """Makes readers, which share one thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "request-reader")
        self._waiting = 0

    def reader(self, method: str) -> RequestReader:
        """Return what reads the requests of a method, which this process serves.

        :param method: As gRPC has it, `/SERVICE/METHOD`.
        """
        return RequestReader(
            descriptor_pool.Default().FindMethodByName(method.removeprefix("/").replace("/", ".")), self
        )

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, read: Callable[[R], T], raw: R) -> T:
        """Read, or write, something large after what came before.

        :raises ApiError: As that does; RESOURCE_EXHAUSTED: too many wait.
        """
        if self._waiting >= _WAITING:
            raise server_busy("too many large requests wait to be read")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, read, raw)
        finally:
            self._waiting -= 1


class RequestReader:
    """Reads the requests of one method."""

    def __init__(self, method: MethodDescriptor, readers: Readers) -> None:
        """Prepare to read.

        :param readers: Read what is large.
        """
        self._name = method.name
        self._type = GetMessageClass(method.input_type)
        self._shape = _shape_of(method.input_type, {})
        self._max_bytes = max_bytes(method.full_name)
        self._max_parts = max_parts(method.full_name)
        self._flat = _is_flat(method.input_type)
        self._readers = readers

    async def read(self, raw: bytes) -> Message:
        """Return the message that was sent.

        :raises ApiError: INVALID_ARGUMENT: it cannot be read, or is larger than requests of this method may be;
            RESOURCE_EXHAUSTED: too many wait to be read.
        """
        if raw.startswith(_GZIP) or (len(raw) > _SMALL_BYTES and not self._flat):
            return await self._readers.run(self.read_large, raw)
        return self._parse(raw)

    async def stream(self, requests: AsyncIterable[bytes]) -> AsyncIterator[Message]:
        """Return an iterator over the messages of a stream, which raises ApiError as for a single one."""

        async def messages() -> AsyncIterator[Message]:
            async for raw in requests:
                yield await self.read(raw)

        return messages()

    def read_large(self, raw: bytes) -> Message:
        """Return a message that may be compressed, in this thread.

        :raises ApiError: INVALID_ARGUMENT.
        """
        return self._parse(self._unpacked(raw) if raw.startswith(_GZIP) else raw)

    def _unpacked(self, raw: bytes) -> bytes:
        unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            unpacked = unpacking.decompress(raw, self._max_bytes + 1)
        except zlib.error as error:
            raise self._unreadable(f"it is no gzip: {error}") from None
        if len(unpacked) > self._max_bytes:
            raise self._too_large("bytes", self._max_bytes)
        if not unpacking.eof or unpacking.unused_data:
            raise self._unreadable("what was compressed by gzip does not end where the message does")
        return unpacked

    def _parse(self, raw: bytes) -> Message:
        if len(raw) > self._max_bytes:
            raise self._too_large("bytes", self._max_bytes)
        try:
            # A part takes two bytes at least.
            if len(raw) > 2 * self._max_parts and not self._flat:
                _count(raw, 0, len(raw), self._shape, self._max_parts)
            return self._type.FromString(raw)
        except _TooManyPartsError:
            raise self._too_large("fields", self._max_parts) from None
        except (DecodeError, IndexError, RecursionError):
            raise self._unreadable(f"it is no {self._type.DESCRIPTOR.full_name}") from None

    def _unreadable(self, why: str) -> ApiError:
        return _refusal(f"the request of {self._name} cannot be read: {why}")

    def _too_large(self, what: str, limit: int) -> ApiError:
        return _refusal(f"a request of {self._name} must have at most {limit} {what}, this one has more")


class _TooManyPartsError(Exception):
    """A message has more parts than it may have."""


def _refusal(message: str) -> ApiError:
    return ApiError(code=Code.INVALID_ARGUMENT, reason=ErrorReason.INVALID_REQUEST, message=message)


def _shape_of(kind: Descriptor, known: dict[str, _Shape]) -> _Shape:
    shape = known.get(kind.full_name)
    if shape is None:
        shape = known[kind.full_name] = {}
        for field in kind.fields:
            if field.message_type is not None:
                if not _is_flat(field.message_type):
                    shape[field.number] = _shape_of(field.message_type, known)
            elif field.is_repeated and field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
                shape[field.number] = None
    return shape


def _is_flat(kind: Descriptor) -> bool:
    """Tell whether messages of this kind take about as much memory as bytes, whatever these are."""
    return all(field.message_type is None and not field.is_repeated for field in kind.fields)


def _count(raw: bytes, at: int, end: int, shape: _Shape, room: int) -> int:
    """Count the parts of a message that is somewhere in these bytes; return how many more there may be.

    :raises _TooManyPartsError: There are more than there is room for.
    :raises DecodeError, IndexError: There is no message.
    """
    while at < end:
        room -= 1
        if room < 0:
            raise _TooManyPartsError
        tag, at = _varint(raw, at)
        if tag & 7 != _WITH_LENGTH:
            at = _after_number(raw, at, tag & 7)
            continue
        size, at = _varint(raw, at)
        if size > end - at:
            raise DecodeError
        inner = shape.get(tag >> 3, _NOTHING)
        if inner is None:
            room -= size
        elif inner is not _NOTHING:
            room = _count(raw, at, at + size, inner, room)
        at += size
    if at > end:
        raise DecodeError
    return room


_WITH_LENGTH: Final = 2
"""The kind of fields that say how long they are: texts, bytes, messages, and numbers in a row."""
_NOTHING: Final[_Shape] = {}
"""Stands for what need not be looked into."""


def _after_number(raw: bytes, at: int, kind: int) -> int:
    """Return where a number ends that is encoded there in one of the ways for numbers."""
    match kind:
        case 0:
            return _varint(raw, at)[1]
        case 1:
            return at + 8
        case 5:
            return at + 4
        case _:
            raise DecodeError


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number that is encoded there, and where it ends."""
    value = raw[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError
