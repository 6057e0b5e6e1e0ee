"""The parameter that takes the payload: how the body of a request becomes its value."""

from __future__ import annotations

import inspect
import json
import types
import typing
from dataclasses import dataclass
from typing import Any, Final, Union

from homing_function.errors import InvalidInputError, Violation
from homing_function.types import ConversionError, Converter, converter

_MISSING: Final = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """One parameter of a function."""

    name: str
    hint: Any
    """Its type; Any where it has none."""
    default: Any
    """What it is where the body is empty; _MISSING where it has no default."""
    convert: Converter

    @classmethod
    def of(cls, parameter: inspect.Parameter, hint: Any) -> Payload:
        """Read a parameter.

        :raises TypeError: Its type is none that JSON can carry.
        """
        kind = Any if hint is _MISSING else _bare(hint)
        return cls(name=parameter.name, hint=kind, default=parameter.default, convert=converter(kind))

    def value(self, body: bytes, content_type: str) -> Any:
        """Return the value that a body stands for.

        :param content_type: What it says that it is. It matters where the parameter has no type.
        :raises InvalidInputError: The body does not fit the type.
        """
        if not body and self.default is not _MISSING:
            return self.default
        if not body and self._takes_none:
            return None
        if self._raw is bytes:
            return body
        if self._raw is str:
            return self._text(body)
        if self.hint is Any and not _is_json(content_type):
            return body if content_type.startswith("application/octet-stream") else self._text(body)
        if not body:
            raise self._invalid("must be JSON, and the body is empty")
        try:
            return self.convert.load(json.loads(body), self.name)
        except ConversionError as error:
            raise InvalidInputError(error.violations) from error
        except (ValueError, RecursionError) as error:
            raise self._invalid(f"is not JSON: {error}") from error

    @property
    def _raw(self) -> Any:
        """The type where it is text or bytes, or one of them or None: the body is taken as it is."""
        kinds = [kind for kind in _members(self.hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else None

    @property
    def _takes_none(self) -> bool:
        return not {Any, None, type(None)}.isdisjoint(_members(self.hint))

    def _text(self, body: bytes) -> str:
        try:
            return body.decode()
        except UnicodeDecodeError as error:
            raise self._invalid(f"is not UTF-8: {error.reason} at byte {error.start}") from error

    def _invalid(self, rule: str) -> InvalidInputError:
        return InvalidInputError([Violation(self.name, rule)])


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types of which a value is one."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")
