"""A server, or `homing dev`, that cuts off readers after a second in place of thirty."""

from __future__ import annotations

import sys

import homing_cli.main
import homing_server.app
from homing_server.front.api import serving


def main() -> None:
    """Run it."""
    serving.UNREAD_SECONDS = 1.0
    (homing_cli.main if sys.argv[1:] == ["dev"] else homing_server.app).main()
