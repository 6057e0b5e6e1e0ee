"""homing's worker: runs function containers and delivers their results."""

from importlib.metadata import version

__version__ = version("homing-worker")
