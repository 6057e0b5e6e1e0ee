"""Functions for homing, written in Python: type hints say what comes in and goes out, HTTP is taken care of.

::

    from homing_function import Context, function

    @function
    def hello(name: str, ctx: Context) -> str:
        return f"Hello {name}, this is attempt {ctx.attempt}"
"""

from importlib.metadata import version

from homing_function.context import Context
from homing_function.declaration import Function, function
from homing_function.errors import DoNotRetry, InvalidInputError, Violation
from homing_function.response import Response

__version__ = version("homing-function")

__all__ = ["Context", "DoNotRetry", "Function", "InvalidInputError", "Response", "Violation", "function"]
