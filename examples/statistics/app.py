"""JSON in and out by dataclasses; what does not fit is refused with the name of the field."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from homing_function import DoNotRetry, function


@dataclass
class Sample:
    """Numbers to look at."""

    values: list[float]
    name: str = "sample"


@dataclass
class Summary:
    """What they are like."""

    name: str
    count: int
    mean: float
    deviation: float | None


@function
def summarize(sample: Sample) -> Summary:
    """Return mean and deviation."""
    if not sample.values:
        raise DoNotRetry("there is nothing to summarize")
    values = sample.values
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(name=sample.name, count=len(values), mean=statistics.mean(values), deviation=deviation)
