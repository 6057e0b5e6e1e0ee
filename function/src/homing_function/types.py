"""Python types as JSON: what a typed function takes and gives, checked on both ways.

Dataclasses and TypedDicts are taken apart here, in pure Python, so that no further package is needed. What pydantic
knows better, its own models, is left to pydantic: a model can only be given by who has imported it.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final, Literal, Union
from uuid import UUID

from homing_function.errors import Violation

Json = Any
"""What json.dumps takes and json.loads gives."""


class ConversionError(Exception):
    """A value is not of its type."""

    def __init__(self, path: str, rule: str, *more: tuple[str, str]) -> None:
        self.path = path
        self.violations = tuple(Violation(*one) for one in ((path, rule), *more))
        super().__init__("; ".join(f"{one.field}: {one.description}" for one in self.violations))


@dataclass(frozen=True, slots=True)
class Converter:
    """Turns the values of one type into JSON and back. Both ways raise ConversionError where it does not fit."""

    name: str
    dump: Callable[[Any, str], Json]
    load: Callable[[Json, str], Any]


def converter(kind: Any) -> Converter:
    """Return the converter of a type.

    :raises TypeError: It is a type that JSON cannot carry, or holds one.
    """
    return _Builder().build(kind, "")


def _mismatch(path: str, wanted: str, value: object) -> ConversionError:
    return ConversionError(path, f"must be {wanted}, is {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '…'}"


def _exactly(kind: type) -> Converter:
    def check(value: Any, path: str) -> Any:
        # A bool is an int to Python and an Enum may be a str, but neither is meant so.
        if not isinstance(value, kind) or (isinstance(value, (bool, Enum)) and kind is not bool):
            raise _mismatch(path, kind.__name__, value)
        return value

    return Converter(kind.__name__, check, check)


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _mismatch(path, "a finite float", value)
    return float(value)


def _nothing(value: Any, path: str) -> None:
    if value is not None:
        raise _mismatch(path, "None", value)


def _as_it_is(value: Any, _path: str) -> Any:
    return value


def _by_text(kind: type, write: Callable[[Any], str], read: Callable[[str], Any]) -> Converter:
    def dump(value: Any, path: str) -> Json:
        if not isinstance(value, kind) or (kind is date and isinstance(value, datetime)):
            raise _mismatch(path, kind.__name__, value)
        return write(value)

    def load(value: Json, path: str) -> Any:
        if not isinstance(value, str):
            raise _mismatch(path, f"{kind.__name__} as text", value)
        try:
            return read(value)
        except (ValueError, InvalidOperation, binascii.Error):
            raise _mismatch(path, f"{kind.__name__} as text", value) from None

    return Converter(kind.__name__, dump, load)


def _dump_span(value: Any, path: str) -> Json:
    if not isinstance(value, timedelta):
        raise _mismatch(path, "timedelta", value)
    return value.total_seconds()


def _load_span(value: Json, path: str) -> timedelta:
    try:
        return timedelta(seconds=_number(value, path))
    except OverflowError:
        raise _mismatch(path, "timedelta as seconds", value) from None


def _read_moment(text: str) -> datetime:
    return datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text)


_PLAIN: Final[Mapping[Any, Converter]] = {
    Any: Converter("Any", _as_it_is, _as_it_is),
    object: Converter("object", _as_it_is, _as_it_is),
    None: Converter("None", _nothing, _nothing),
    type(None): Converter("None", _nothing, _nothing),
    bool: _exactly(bool),
    int: _exactly(int),
    str: _exactly(str),
    float: Converter("float", _number, _number),
    bytes: _by_text(
        bytes, lambda value: base64.b64encode(value).decode(), lambda text: base64.b64decode(text, validate=True)
    ),
    datetime: _by_text(datetime, datetime.isoformat, _read_moment),
    date: _by_text(date, date.isoformat, date.fromisoformat),
    time: _by_text(time, time.isoformat, time.fromisoformat),
    timedelta: Converter("timedelta", _dump_span, _load_span),
    Decimal: _by_text(Decimal, str, Decimal),
    UUID: _by_text(UUID, str, UUID),
}
_LISTS: Final[Mapping[Any, type]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
}
_KEYS: Final = (str, int, UUID, date, datetime, Enum)


class _Builder:
    """Builds converters; one that is asked for while it is being built is that of a type that holds itself."""

    def __init__(self) -> None:
        self._known: dict[Any, Converter] = {}

    def build(self, kind: Any, where: str) -> Converter:  # noqa: PLR0911 - one kind after another
        if isinstance(kind, typing.NewType):
            return self.build(kind.__supertype__, where)
        if kind in _PLAIN:
            return _PLAIN[kind]
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            return self.build(arguments[0], where)
        if origin is Literal:
            return _literal(arguments)
        if origin in (Union, types.UnionType):
            return _union([self.build(argument, where) for argument in arguments])
        shape = origin or kind
        if shape is tuple:
            return self._tuple(arguments, where)
        if shape in _LISTS:
            return _items(shape, self.build(arguments[0] if arguments else Any, f"{where}[]"))
        if shape in (dict, collections.abc.Mapping):
            return self._mapping(*(arguments or (str, Any)), where=where)
        if isinstance(kind, type):
            return self._class(kind, where)
        raise _unsupported(kind, where)

    def _class(self, kind: type, where: str) -> Converter:
        if _is_model(kind):
            return _model(kind)
        if issubclass(kind, Enum):
            return _enum(kind)
        if issubclass(kind, dict) and hasattr(kind, "__required_keys__"):  # that of typing_extensions too
            return self._named(kind, where, _typed_dict)
        if dataclasses.is_dataclass(kind):
            return self._named(kind, where, _dataclass)
        raise _unsupported(kind, where)

    def _named(
        self, kind: type, where: str, make: Callable[[Any, Mapping[str, Converter], Mapping[str, Any]], Converter]
    ) -> Converter:
        if kind in self._known:
            return self._known[kind]
        built: list[Converter] = []
        self._known[kind] = Converter(
            kind.__name__,
            lambda value, path: built[0].dump(value, path),  # noqa: PLW0108 - it is not there yet
            lambda value, path: built[0].load(value, path),  # noqa: PLW0108
        )
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except NameError as err:
            raise TypeError(f"the types of {kind.__name__} cannot be found: {err}") from None
        names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
        fields = {name: self.build(_unmarked(hints[name]), f"{where}.{name}") for name in names}
        built.append(make(kind, fields, hints))
        return built[0]

    def _tuple(self, arguments: tuple[Any, ...], where: str) -> Converter:
        if not arguments or arguments[-1] is Ellipsis:
            return _items(tuple, self.build(arguments[0] if arguments else Any, f"{where}[]"))
        return _fixed([self.build(argument, f"{where}[{at}]") for at, argument in enumerate(arguments)])

    def _mapping(self, key: Any, value: Any, *, where: str) -> Converter:
        if not (key is Any or (isinstance(key, type) and issubclass(key, _KEYS) and key is not bool)):
            raise _unsupported(key, f"a key of {where.lstrip('.')}" if where else "a key")
        return _dict(self.build(str if key is Any else key, where), self.build(value, f"{where}[]"))


def _mark(hint: Any) -> str:
    """Return the mark that a key of a TypedDict bears, or nothing."""
    name = getattr(typing.get_origin(hint), "_name", None)
    return name if name in ("Required", "NotRequired", "ReadOnly") else ""


def _unmarked(hint: Any) -> Any:
    while _mark(hint):
        (hint,) = typing.get_args(hint)
    return hint


def _is_required(kind: Any, name: str, hint: Any) -> bool:
    """Tell whether a key must be there. Where annotations are texts, the class itself has not seen their marks."""
    while mark := _mark(hint):
        if mark != "ReadOnly":
            return mark == "Required"
        (hint,) = typing.get_args(hint)
    return name in kind.__required_keys__


def _unsupported(kind: Any, where: str) -> TypeError:
    place = f"{where.lstrip('.')}: " if where else ""
    return TypeError(f"{place}{kind!r} is no type that can be carried as JSON")


def _literal(choices: tuple[Any, ...]) -> Converter:
    def check(value: Any, path: str) -> Any:
        for choice in choices:
            if value == choice and type(value) is type(choice):
                return value
        raise _mismatch(path, f"one of {', '.join(map(repr, choices))}", value)

    return Converter("Literal", check, check)


def _enum(kind: type[Enum]) -> Converter:
    def dump(value: Any, path: str) -> Json:
        if not isinstance(value, kind):
            raise _mismatch(path, kind.__name__, value)
        return value.value

    def load(value: Json, path: str) -> Any:
        for member in kind:
            if member.value == value and type(member.value) is type(value):
                return member
        raise _mismatch(path, f"one of {', '.join(repr(member.value) for member in kind)}", value)

    return Converter(kind.__name__, dump, load)


def _union(members: list[Converter]) -> Converter:
    name = " | ".join(member.name for member in members)

    def first(value: Any, path: str, ways: list[Callable[[Any, str], Any]]) -> Any:
        errors = []
        for way in ways:
            try:
                return way(value, path)
            except ConversionError as error:
                errors.append(error)
        deeper = [error for error in errors if error.path != path]
        # One member had the right shape but a wrong part: that part is what is at fault.
        raise deeper[0] if len(deeper) == 1 else _mismatch(path, name, value)

    return Converter(
        name,
        lambda value, path: first(value, path, [member.dump for member in members]),
        lambda value, path: first(value, path, [member.load for member in members]),
    )


def _items(shape: Any, item: Converter) -> Converter:
    made: type = _LISTS.get(shape, tuple)
    name = f"{made.__name__}[{item.name}]"
    wanted: Any = shape

    def dump(value: Any, path: str) -> Json:
        if not isinstance(value, wanted) or isinstance(value, (str, bytes)):
            raise _mismatch(path, name, value)
        return [item.dump(part, f"{path}[{at}]") for at, part in enumerate(value)]

    def load(value: Json, path: str) -> Any:
        if not isinstance(value, list):
            raise _mismatch(path, name, value)
        return made(item.load(part, f"{path}[{at}]") for at, part in enumerate(value))

    return Converter(name, dump, load)


def _fixed(parts: list[Converter]) -> Converter:
    name = f"tuple[{', '.join(part.name for part in parts)}]"

    def check(value: Any, kind: type[tuple[Any, ...] | list[Any]], path: str) -> None:
        if not (isinstance(value, kind) and len(value) == len(parts)):
            raise _mismatch(path, name, value)

    def dump(value: Any, path: str) -> Json:
        check(value, tuple, path)
        return [part.dump(value[at], f"{path}[{at}]") for at, part in enumerate(parts)]

    def load(value: Json, path: str) -> Any:
        check(value, list, path)
        return tuple(part.load(value[at], f"{path}[{at}]") for at, part in enumerate(parts))

    return Converter(name, dump, load)


def _dict(key: Converter, item: Converter) -> Converter:
    name = f"dict[{key.name}, {item.name}]"

    def dump(value: Any, path: str) -> Json:
        if not isinstance(value, Mapping):
            raise _mismatch(path, name, value)
        # JSON has text for keys only.
        return {
            str(key.dump(one, f"a key of {path}")): item.dump(part, f"{path}[{one!r}]") for one, part in value.items()
        }

    def load_key(text: str, path: str) -> Any:
        try:
            return key.load(text, path)
        except ConversionError:
            try:
                number = int(text)
            except ValueError:
                number = None
            if number is None or str(number) != text:
                raise
            return key.load(number, path)

    def load(value: Json, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(path, name, value)
        return {load_key(one, f"a key of {path}"): item.load(part, f"{path}[{one!r}]") for one, part in value.items()}

    return Converter(name, dump, load)


def _typed_dict(kind: Any, fields: Mapping[str, Converter], hints: Mapping[str, Any]) -> Converter:
    required = {name for name, hint in hints.items() if _is_required(kind, name, hint)}

    def convert(value: Any, path: str, *, load: bool) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(path, kind.__name__, value)
        for name in sorted(required - value.keys()):
            raise ConversionError(f"{path}.{name}", "is missing")
        if not load:  # what a function answers may be newer than this type; what is sent to it may not
            for name in value.keys() - fields.keys():
                raise ConversionError(f"{path}.{name}", f"is no key of {kind.__name__}")
        return {
            name: (field.load if load else field.dump)(value[name], f"{path}.{name}")
            for name, field in fields.items()
            if name in value
        }

    return Converter(
        kind.__name__,
        lambda value, path: convert(value, path, load=False),
        lambda value, path: convert(value, path, load=True),
    )


def _dataclass(kind: Any, fields: Mapping[str, Converter], _hints: Mapping[str, Any]) -> Converter:
    def dump(value: Any, path: str) -> Json:
        if not isinstance(value, kind):
            raise _mismatch(path, kind.__name__, value)
        return {name: field.dump(getattr(value, name), f"{path}.{name}") for name, field in fields.items()}

    def load(value: Json, path: str) -> Any:
        if not isinstance(value, dict):
            raise _mismatch(path, kind.__name__, value)
        given = {}
        for field in dataclasses.fields(kind):
            if not field.init:
                continue
            if field.name in value:
                given[field.name] = fields[field.name].load(value[field.name], f"{path}.{field.name}")
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ConversionError(f"{path}.{field.name}", "is missing")
        try:
            return kind(**given)
        except (TypeError, ValueError) as err:  # what its __post_init__ says
            raise ConversionError(path, f"is refused by {kind.__name__}: {err}") from err

    return Converter(kind.__name__, dump, load)


def _is_model(kind: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _model(kind: Any) -> Converter:
    """Return the converter of a pydantic model, which checks and converts itself."""

    def dump(value: Any, path: str) -> Json:
        if not isinstance(value, kind):
            raise _mismatch(path, kind.__name__, value)
        try:  # a model may hold what it was not validated with: that is an error here, not a warning
            return value.model_dump(mode="json", by_alias=True, warnings="error")
        except ValueError as err:
            raise ConversionError(path, f"is refused by {kind.__name__}: {err}") from err

    def load(value: Json, path: str) -> Any:
        try:  # as JSON, because a strict model takes a datetime as text from nothing else
            return kind.model_validate_json(json.dumps(value))
        except ValueError as err:
            raise _validation_error(err, path) from err

    return Converter(kind.__name__, dump, load)


def _validation_error(error: Any, path: str) -> ConversionError:
    """Return what a pydantic ValidationError says."""
    found = [
        (path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]), item["msg"])
        for item in error.errors()
    ]
    return ConversionError(*found[0], *found[1:])
