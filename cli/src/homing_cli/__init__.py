"""The homing command."""

import os

# gRPC's own log lines would stand between the lines of this program. It reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
