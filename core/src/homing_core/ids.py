"""Identifiers that sort by the time at which they were made."""

import os
import re
import time

ID_LENGTH = 36
"""So many characters has an id."""

_HEX = re.compile("[0-9a-f]+")


def new_id(time_us: int | None = None) -> str:
    """Return a UUID of version 7: milliseconds, 12 bits of their fraction, random bits (RFC 9562, 6.2, method 3).

    :param time_us: The time in it, in microseconds since the epoch; None means now.
    """
    milliseconds, nanoseconds = divmod(time.time_ns() if time_us is None else time_us * 1000, 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    digits = f"{milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def times_of_ids(prefix: str) -> tuple[int, int] | None:
    """Return the first time that may be in ids which begin so, and the first after all of theirs, in microseconds.

    None where ids cannot begin so, or where all do.
    """
    digits = prefix.replace("-", "")[:12]
    if not _HEX.fullmatch(digits):
        return None
    first, last = (int(digits.ljust(12, rest), 16) for rest in "0f")
    return first * 1000, (last + 1) * 1000
