"""Checks of arguments, made before anything is sent. Wrong types are TypeErrors, wrong values InvalidRequestErrors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import grpc

from homing._core.reasons import ErrorReason
from homing.errors import InvalidRequestError, Violation

_LONGEST = 315_576_000_000.0  # about 10,000 years, the largest google.protobuf.Duration

_LONGEST_WAIT = 3_155_760_000.0
"""100 years: gRPC counts the nanoseconds from 1970 to a deadline in 63 bits, and takes a later one to be over."""


def invalid(name: str, rule: str) -> InvalidRequestError:
    """Return the error of an argument that breaks a rule."""
    return InvalidRequestError(
        f"{name}: {rule}",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=ErrorReason.INVALID_REQUEST,
        violations=(Violation(name, rule),),
    )


def text(name: str, value: object) -> str:
    """Check that an argument is a str that UTF-8 can carry."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise invalid(name, f"is not valid Unicode text: {err.reason} at {err.start}") from None
    return value


def text_map(name: str, value: object) -> dict[str, str]:
    """Check that an argument is a mapping from str to str; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of str to str, not {type(value).__name__}")
    return {text(f"a key of {name}", key): text(f"{name}[{key!r}]", item) for key, item in value.items()}


def texts(name: str, value: object) -> list[str]:
    """Check that an argument is a list of str, and not one str; None is an empty one."""
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of str, not {type(value).__name__}")
    return [text(name, item) for item in value]


def flag(name: str, value: object) -> bool:
    """Check that an argument is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be bool, not {type(value).__name__}")
    return value


def integer(name: str, value: object) -> int:
    """Check that an argument is a whole number that 32 bits can carry."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    if not -(2**31) <= value < 2**31:
        raise invalid(name, f"must be from {-(2**31)} to {2**31 - 1}, is {value}")
    return value


def count(name: str, value: object) -> int:
    """Check that an argument is a whole number, not negative, that 63 bits can carry."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    if not 0 <= value < 2**63:
        raise invalid(name, f"must be from 0 to {2**63 - 1}, is {value}")
    return value


def number(name: str, value: object) -> float:
    """Check that an argument is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    return _finite(name, value, "number")


def seconds(name: str, value: object, *, zero: bool = True) -> float:
    """Check that an argument is a duration that is not negative, and unless allowed not zero; return its seconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    value = _finite(name, value, "number of seconds")
    if value < 0 or (value == 0 and not zero):
        rule = "must not be negative" if zero else "must be more than 0 s"
        raise invalid(name, f"{rule}, is {value:.12g} s")
    if value > _LONGEST:
        raise invalid(name, f"must be at most {_LONGEST:.0f} s, is {value:.12g} s")
    return value


def timeout(value: object, *, zero: bool = False) -> float:
    """Check that the argument ``timeout`` is a duration, as `seconds` does, and one that can be waited for."""
    length = seconds("timeout", value, zero=zero)
    if length > _LONGEST_WAIT:
        raise invalid("timeout", f"must be at most {_LONGEST_WAIT:.0f} s, is {length:.12g} s")
    return length


def moment(name: str, value: object) -> datetime:
    """Check that an argument is a datetime that knows its time zone; return it in UTC."""
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise invalid(name, "must have a time zone, for example datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise invalid(name, f"must be from the year 1 to the year 9999 in UTC, is {value.isoformat()}") from None


def from_now(name: str, value: object, *, zero: bool = True) -> datetime:
    """Check that an argument is a duration, as ``seconds`` does; return when it is over."""
    length = seconds(name, value, zero=zero)
    try:
        return datetime.now(UTC) + timedelta(seconds=length)
    except OverflowError:
        raise invalid(name, f"must be over by the year 9999, is {length:.12g} s") from None


def _finite(name: str, value: float, what: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # an int of hundreds of digits
        raise invalid(name, f"must be a {what} that a float can carry") from None
    if not math.isfinite(number):
        raise invalid(name, f"must be a finite {what}, is {number}")
    return number
