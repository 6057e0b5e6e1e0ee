"""The homing command."""

import os

# gRPC's own log lines would stand between the lines of this program. It reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# What it does around a fork serves children that go on using it. Ours become other programs, and a hang was seen.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
