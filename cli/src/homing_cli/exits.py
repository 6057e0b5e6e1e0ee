"""What the exit codes of the program mean."""

from __future__ import annotations

from typing import Final

import homing
from homing_cli.stack.errors import StackError

FUNCTION_FAILED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
NOT_FOUND: Final = 4
REFUSED: Final = 5

_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (StackError, USAGE),
    (homing.InvocationError, FUNCTION_FAILED),
    (homing.InvalidRequestError, USAGE),
    (homing.ResultTimeoutError, UNAVAILABLE),
    (homing.UnavailableError, UNAVAILABLE),
    (homing.DeadlineExceededError, UNAVAILABLE),
    (homing.RateLimitedError, UNAVAILABLE),
    (homing.NotFoundError, NOT_FOUND),
)


def exit_code(error: Exception) -> int:
    """Return the exit code that tells of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)
