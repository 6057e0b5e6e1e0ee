"""What a path and a query say, as the JSON of the request that it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from homing_server.errors import Violation, invalid_request

_MOST: Final = 1_000
"""So many parameters at the most."""
_SHOWN_CHARACTERS: Final = 64
_TEXTS: Final = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})
"""Messages that JSON has as texts."""
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "false": False}
_ENTRY: Final = re.compile(r"([^\[\]]+)\[(.*)\]", re.DOTALL)


class _UnknownError(Exception):
    """There is no such field."""


def add_parameters(fields: dict[str, Any], kind: Descriptor, query: bytes) -> None:
    """Add to the JSON of a request what a query says.

    :raises ApiError: INVALID_ARGUMENT.
    """
    if not query:
        return
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=_MOST
        )
    except ValueError:
        raise _broken("", f"the query must be at most {_MOST} parameters, percent-encoded UTF-8") from None
    for name, value in pairs:
        _add(fields, kind, name, value)


def add_path(fields: dict[str, Any], kind: Descriptor, names: Iterable[str], values: Iterable[str]) -> None:
    """Add to the JSON of a request what a path says.

    :raises ApiError: INVALID_ARGUMENT: the body says something else.
    """
    for name, value in zip(names, values, strict=True):
        inner, last = _within(fields, kind, name)
        said = inner.setdefault(last.json_name, value)
        also = inner.pop(last.name, value) if last.name != last.json_name else value
        if (said, also) != (value, value):
            raise _broken(name, "must be what the path says, or not be said")


def _add(fields: dict[str, Any], kind: Descriptor, name: str, text: str) -> None:
    entry = _ENTRY.fullmatch(name)
    try:
        inner, field = _within(fields, kind, entry[1] if entry else name)
    except _UnknownError:
        raise _broken(name, "there is no such parameter") from None
    if entry:
        _add_entry(inner, field, name, key=entry[2], text=text)
    elif field.is_repeated:
        if field.message_type is not None:
            raise _broken(name, f"must be said as {name}[KEY]" if _is_map(field) else "cannot be a parameter")
        inner.setdefault(field.json_name, []).append(_value(field, name, text))
    elif field.json_name in inner:
        raise _broken(name, "must be said once")
    else:
        inner[field.json_name] = _value(field, name, text)


def _add_entry(inner: dict[str, Any], field: FieldDescriptor, name: str, *, key: str, text: str) -> None:
    if field.message_type is None or not _is_map(field):
        raise _broken(name, "is no map")
    entries = inner.setdefault(field.json_name, {})
    if key in entries:
        raise _broken(name, "must be said once")
    entries[key] = _value(field.message_type.fields_by_name["value"], name, text)


def _within(fields: dict[str, Any], kind: Descriptor, path: str) -> tuple[dict[str, Any], FieldDescriptor]:
    """Return the JSON of the message in which a field is, and the field.

    :raises _UnknownError: There is none.
    :raises ApiError: INVALID_ARGUMENT: the body has something else in the place of a message.
    """
    *outer, last = path.split(".")
    for name in outer:
        field = _field(kind, name)
        if field.message_type is None or field.is_repeated or field.message_type.full_name in _TEXTS:
            raise _UnknownError
        kind = field.message_type
        if fields.get(field.name) is not None and field.name != field.json_name:
            fields[field.json_name] = fields.pop(field.name)
        if fields.get(field.json_name) is None:
            fields[field.json_name] = {}
        fields = fields[field.json_name]
        if not isinstance(fields, dict):
            raise _broken(name, "must be an object")
    return fields, _field(kind, last)


def _field(kind: Descriptor, name: str) -> FieldDescriptor:
    for field in kind.fields:
        if name in (field.json_name, field.name):
            return field
    raise _UnknownError


def _value(field: FieldDescriptor, name: str, text: str) -> Any:
    if field.message_type is not None and field.message_type.full_name not in _TEXTS:
        raise _broken(name, f"name one of its fields, as {name}.{field.message_type.fields[0].json_name}")
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in _BOOLEANS:
            raise _broken(name, "must be true or false")
        return _BOOLEANS[text]
    return text


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _broken(name: str, description: str) -> Exception:
    return invalid_request([Violation(field=name[:_SHOWN_CHARACTERS], description=description)])
