"""Lengths of time as people write them in headers, labels and annotations."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_NUMBER: Final = r"\d{1,18}(?:\.\d{1,9})?"
_PART: Final = re.compile(rf"({_NUMBER})(h|ms|m|s|us|µs|ns)", re.ASCII)
_WHOLE: Final = re.compile(rf"(?:{_NUMBER}(?:h|ms|m|s|us|µs|ns))+", re.ASCII)
_SECONDS: Final = re.compile(_NUMBER, re.ASCII)

_MOST_CHARACTERS: Final = 64
_LONGEST_SECONDS: Final = 1e10
"""Longer than anything that is asked for, and short enough for a Duration."""

FORM: Final = "must be a length of time such as 90s, 1m30s or 500ms, or a number of seconds"


def seconds_of(text: str) -> float | None:
    """Return a length of time in seconds; None where it is none.

    It is written as Go's `time.ParseDuration` reads it, without a sign, or as a number of seconds.
    """
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def duration_of(text: str) -> Duration | None:
    """Return a length of time as messages have it, the longest where it is longer still; None where it is none."""
    seconds = seconds_of(text)
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(min(seconds, _LONGEST_SECONDS) * 1e9))
    return duration
