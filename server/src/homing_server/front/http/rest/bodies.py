"""Reads JSON that anybody may have sent, at a cost that is bounded before it is paid, and makes requests of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import Error as JsonError
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from homing_server.errors import ApiError, Code, ErrorReason, Violation, invalid_request, shown

_MAX_DEPTH: Final = 32
"""No request is nested so deeply."""
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)
_OPENING: Final = b"[{"
_CLOSING: Final = b"]}"
_WHERE: Final = re.compile(r"(?:Failed to parse (\w+) field: )")
_AT: Final = re.compile(r' at "?\w+\.([\w.\[\]]+?)"?\.*$')
_PLACE: Final = re.compile(r"\[[^\]]*\]")
_SHOWN_CHARACTERS: Final = 200
_MESSAGES: Final[Mapping[str, str]] = {
    "google.protobuf.Timestamp": "a time as RFC 3339 has it, 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "a number of seconds with an s behind it, 1.5s",
    "google.protobuf.FieldMask": "names of fields with commas between them",
}
_SCALARS: Final[Mapping[int, str]] = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT32: "a whole number of 32 bits from 0 on",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits from 0 on",
}
"""What the JSON of a field must be, by its kind."""


def read_object(raw: bytes, *, max_parts: int) -> dict[str, Any]:
    """Return the JSON object that a body is; an empty one where there is no body.

    :param max_parts: How many values it may have, with those in it.
    :raises ApiError: INVALID_ARGUMENT.
    """
    if not raw.strip():
        return {}
    _check_parts(raw, max_parts)
    try:
        value = json.loads(raw, object_pairs_hook=_object, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise _unreadable("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _unreadable(f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise _unreadable(f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise _unreadable("the body must be a JSON object")
    return value


def message_of(fields: dict[str, Any], request: Message, kind: Descriptor) -> Message:
    """Fill a request of some kind from its JSON and return it.

    :raises ApiError: INVALID_ARGUMENT: it names a field that there is not, or a value that the field cannot have.
    """
    unknown = _unknown(fields, kind, "")
    if unknown:
        raise invalid_request([Violation(field=unknown, description="there is no such field")])
    try:
        return ParseDict(fields, request)
    except (JsonError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        # It does not say what it raises; JSON of the wrong kind shows in all these ways.
        raise _unparsable(str(error), kind) from None


def _check_parts(raw: bytes, most: int) -> None:
    """Count values, and look how deep they are, before any of them is made.

    :raises ApiError: INVALID_ARGUMENT.
    """
    opened = raw.count(b"[") + raw.count(b"{")
    if opened <= _MAX_DEPTH and opened + raw.count(b",") <= most:
        return
    parts = depth = 0
    for match in _TOKEN.finditer(raw):
        token = match[0][:1]
        if token == b",":
            parts += 1
        elif token in _OPENING:
            parts += 1
            depth += 1
        elif token in _CLOSING:
            depth -= 1
        if parts > most:
            raise _unreadable(f"the body must have at most {most} values")
        if depth > _MAX_DEPTH:
            raise _unreadable(f"the body must be at most {_MAX_DEPTH} levels deep")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("an object has a name twice")
    return fields


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _unknown(value: object, kind: Descriptor, path: str) -> str:
    """Return the path of a field that a message of this kind does not have; empty where all are known."""
    if not isinstance(value, dict) or kind.full_name.startswith("google."):
        return ""
    fields = {field.json_name: field for field in kind.fields} | dict(kind.fields_by_name.items())
    for name, inner in value.items():
        field = fields.get(name)
        if field is None:
            return f"{path}{shown(name)[1:-1]}"
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            continue
        for place, each in enumerate(inner) if isinstance(inner, list) else ((None, inner),):
            where = f"{path}{field.name}" if place is None else f"{path}{field.name}[{place}]"
            unknown = _unknown(each, field.message_type, f"{where}.")
            if unknown:
                return unknown
    return ""


def _unparsable(text: str, kind: Descriptor) -> ApiError:
    """Return the error of JSON that cannot be what it should be; what protobuf says of it tells where."""
    line = text.strip().partition("\n")[0]
    found = _AT.search(line)
    path = found[1] if found else ".".join(_WHERE.findall(line))
    field = _field_at(kind, path)
    if field is None:
        return _unreadable(f"the body is no {kind.full_name}")
    return invalid_request([Violation(field=path[:_SHOWN_CHARACTERS], description=f"must be {_words(field)}")])


def _field_at(kind: Descriptor, path: str) -> FieldDescriptor | None:
    """Return the field that a path leads to, or the last one on it that there is."""
    found = None
    for name in _PLACE.sub("", path).split("."):
        field = next((each for each in kind.fields if name in (each.json_name, each.name)), None)
        if field is None:
            break
        found = field
        if field.message_type is None:
            break
        kind = field.message_type
    return found


def _words(field: FieldDescriptor) -> str:
    """Return what the JSON of a field must be."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return f"an object of which each value is {_words(inner.fields_by_name['value'])}"
    if inner is not None:
        words = _MESSAGES.get(inner.full_name, "an object")
    elif field.enum_type is not None:
        words = f"the name of a value, as {field.enum_type.values[-1].name}"
    else:
        words = _SCALARS[field.cpp_type] if field.type != FieldDescriptor.TYPE_BYTES else "base64"
    return f"a list of which each is {words}" if field.is_repeated else words


def _unreadable(message: str) -> ApiError:
    return ApiError(code=Code.INVALID_ARGUMENT, reason=ErrorReason.INVALID_REQUEST, message=message)
