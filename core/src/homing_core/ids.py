"""Identifiers that sort by the time at which they were made."""

import os
import time
import uuid


def new_id() -> str:
    """Return a UUID of version 7: milliseconds, 12 bits of their fraction, random bits (RFC 9562, 6.2, method 3)."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random))
