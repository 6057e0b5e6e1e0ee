"""A server, or `homing dev`, with room for four calls and for two more of operators, that waits for no worker."""

from __future__ import annotations

import sys

import homing_cli.main
import homing_server.app
from homing_server.front.api import calls
from homing_server.front.http.gateway import door


def main() -> None:
    """Run it."""
    vars(calls).update(_MOST=6, _RESERVED=2)
    vars(door).update(_WORKER_SECONDS=0.1)
    (homing_cli.main if sys.argv[1:] == ["dev"] else homing_server.app).main()
