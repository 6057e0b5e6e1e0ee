"""Functions for homing, written in Python: type hints say what comes in and goes out, HTTP is taken care of.

::

    from homing_function import Context, function

    @function
    def hello(name: str, ctx: Context) -> str:
        return f"Hello {name}, this is attempt {ctx.attempt}"
"""

from homing_function.context import Context
from homing_function.declaration import Function, function
from homing_function.errors import DoNotRetry, InvalidInputError, Violation
from homing_function.response import Response

__all__ = ["Context", "DoNotRetry", "Function", "InvalidInputError", "Response", "Violation", "function"]


def __getattr__(name: str) -> str:
    """Return the version, looked up when it is asked for: that takes as long as all else of a start."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 see above

        return version("homing-function")
    raise AttributeError(f"there is no {name} in {__name__}")
