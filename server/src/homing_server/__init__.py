"""The homing server: admission, store, dispatcher, recorder and watch hub behind gRPC and HTTP."""

import os
from importlib.metadata import version

# What gRPC does around a fork serves children that go on using it. Ours become other programs, and a hang was seen. It
# reads this when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

__version__ = version("homing-server")
