"""Where the program begins, before all that it imports: that takes a while, and Ctrl-C ends it quietly then too."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

_INTERRUPTED: Final = 130


def main() -> None:
    """Run the program: the console script ``homing``."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else its parent wants it to be ignored
    if ours:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from homing_cli.main import main as run  # noqa: PLC0415 - see above

    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
