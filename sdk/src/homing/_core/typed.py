"""The types of a function: how a value becomes its payload, and its answer a value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc

from homing._core import check
from homing._core.types import ConversionError, Converter, converter
from homing._core.values import Result
from homing.errors import InvalidRequestError, InvalidResultError, Violation

In = TypeVar("In")
Out = TypeVar("Out")
_RAW: Final = (str, bytes)
"""What travels as it is and not as JSON."""
_UNTYPED: Final = (object, Any)
"""What travels as the payloads of ``invoke`` do."""


@dataclass(frozen=True, slots=True)
class Signature(Generic[In, Out]):
    """A function's name and its types."""

    function: str
    input: Any
    output: Any
    _input: Converter
    _output: Converter

    @classmethod
    def of(cls, function: str, input: type[In], output: type[Out]) -> Signature[In, Out]:  # noqa: A002 - as users say it
        """Return the signature of these types.

        :raises TypeError: A type is none that JSON can carry.
        """
        return cls(
            function=check.text("function", function),
            input=input,
            output=output,
            _input=_converter("input", input),
            _output=_converter("output", object if output is Result else output),
        )

    def payload(self, value: In) -> tuple[object, str | None]:
        """Return the payload that stands for a value, and its content type where it is not the usual one.

        :raises InvalidRequestError: The value is not of the input type; the violations name what does not fit.
        """
        if self.input in _UNTYPED:
            return value, None
        try:
            carried = self._input.dump(value, "input")
        except ConversionError as error:
            raise InvalidRequestError(
                f"{self.function}: {error}",
                code=grpc.StatusCode.INVALID_ARGUMENT,
                reason="INVALID_INPUT",
                violations=error.violations,
            ) from error.__cause__
        if self.input in _RAW:
            return value, None
        if carried is None:
            return None, None
        return _text(carried), "application/json"

    def value(self, result: Result) -> Out:
        """Return the value that an answer stands for.

        :raises InvalidResultError: The answer is not of the output type; the error keeps it.
        """
        if self.output is Result:
            return result  # type: ignore[return-value]  # Out is Result
        if self.output is str:
            return result.text  # type: ignore[return-value]  # Out is str
        if self.output is bytes:
            return result.data  # type: ignore[return-value]  # Out is bytes
        try:
            return self._output.load(json.loads(result.data) if result.data else None, "result")  # type: ignore[no-any-return]
        except ConversionError as error:
            raise self._invalid(result, error.violations) from error.__cause__
        except ValueError as err:
            raise self._invalid(result, (Violation("result", f"is not JSON: {err}"),)) from err

    def _invalid(self, result: Result, violations: tuple[Violation, ...]) -> InvalidResultError:
        details = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        return InvalidResultError(
            f"{self.function}: {details} (invocation {result.invocation.id})", result=result, violations=violations
        )


def raw(result: Result) -> Result:
    """Return an answer as it is: what a function without types gives."""
    return result


def _text(carried: object) -> bytes:
    try:
        return json.dumps(carried, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as err:
        raise check.invalid("input", f"cannot be written as JSON: {err}") from None


def _converter(name: str, kind: object) -> Converter:
    try:
        return converter(kind)
    except TypeError as err:
        raise TypeError(f"{name}: {err}") from None
