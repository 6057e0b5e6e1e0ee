"""What goes wrong with functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class DoNotRetry(Exception):  # noqa: N818 it is what a function says, not an error of this library
    """Raised by a function: this call has failed, and another attempt does not help.

    ::

        raise DoNotRetry("the invoice is already paid")
    """


class Violation(NamedTuple):
    """A part of an input that does not fit its type."""

    field: str
    """The path of the part, beginning with the name of the parameter: ``job.width``."""
    description: str
    """What it must be, and what it is."""


class InvalidInputError(Exception):
    """An input does not fit the type that the function declares. Its caller is answered 400, without retries."""

    violations: Sequence[Violation]
    """What does not fit."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations


class DeclarationError(TypeError):
    """A function is declared in a way that cannot be served."""


class LoadError(Exception):
    """A file has no functions that could be served, or could not be run."""
