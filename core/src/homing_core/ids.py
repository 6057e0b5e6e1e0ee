"""Identifiers that sort by the time at which they were made."""

import os
import time
import uuid


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562, section 6.2, method 3): 48 bits of milliseconds, 12 of their fraction, then random ones."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random))
