"""Time as homing counts it: whole microseconds since the Unix epoch."""

import time


def now_us() -> int:
    """Return the time now in microseconds since the Unix epoch."""
    return time.time_ns() // 1000
