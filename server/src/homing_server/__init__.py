"""The homing server: admission, store, dispatcher, recorder and watch hub behind gRPC and HTTP."""

from importlib.metadata import version

__version__ = version("homing-server")
