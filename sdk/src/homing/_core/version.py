"""The version of the SDK."""

from importlib.metadata import version
from typing import Final

__version__: Final = version("homing")
