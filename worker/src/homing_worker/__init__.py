"""homing's worker: runs function containers and delivers their results."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("homing-worker")
except PackageNotFoundError:  # run from the sources, not installed
    __version__ = "0.1.0"
