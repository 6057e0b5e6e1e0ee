"""Which invocations a line belongs to that an instance wrote at some time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from homing_core.clock import now_us
from homing_worker.reporting.logs import InvocationLog

DELAY_US: Final = 10_000
"""What is written is seen so much later at the most, as a rule: a line belongs to any call that was served meanwhile.
(Measured: 0.1 ms as a rule, and below this in 99 of 100 cases on a host with three times the work that it can do.)"""
_GRACE_US: Final = 200_000
"""For so long what an instance writes belongs to the call that has ended, where no other one has begun."""
_MAX_REMEMBERED: Final = 64
"""So many ended calls are remembered, since what they wrote may be read late."""


@dataclass(slots=True, eq=False)
class _Span:
    log: InvocationLog | None
    begin_us: int
    end_us: int = 0


class Attribution:
    """Which invocations an instance served when."""

    def __init__(self, *, delay_us: int = DELAY_US) -> None:
        """Prepare to note.

        :param delay_us: So many microseconds after it was written it is seen at the latest, as a rule.
        """
        self._delay_us = delay_us
        self._serving: list[_Span] = []
        self._ended: deque[_Span] = deque(maxlen=_MAX_REMEMBERED)

    @contextmanager
    def serving(self, log: InvocationLog | None) -> Iterator[None]:
        """Note that the instance serves an invocation, perhaps one without a log, while this context is open."""
        span = _Span(log, now_us())
        self._serving.append(span)
        try:
            yield
        finally:
            self._serving.remove(span)
            span.end_us = now_us()
            self._ended.append(span)

    def at(self, time_us: int) -> Sequence[InvocationLog | None]:
        """Return the logs of the invocations that may have written what was seen at a time: mostly one."""
        logs = [span.log for span in self._serving if span.begin_us <= time_us]
        for span in reversed(self._ended):
            if span.end_us <= time_us - self._delay_us:
                break
            if span.begin_us <= time_us:
                logs.append(span.log)
        # Two calls may be attempts of one invocation, the second soon after the first: it gets the line once.
        return list(dict.fromkeys(logs or self._just_ended(time_us)))

    def served(self, log: InvocationLog | None, since_us: int) -> bool:
        """Return whether an invocation was served at any time since then."""
        return any(span.log is log for span in self._serving) or any(
            span.log is log and span.end_us > since_us for span in self._ended
        )

    def _just_ended(self, time_us: int) -> Sequence[InvocationLog | None]:
        before = [span for span in self._ended if time_us - _GRACE_US <= span.end_us <= time_us]
        last_begin = max((span.begin_us for span in before), default=0)
        return [span.log for span in before if span.end_us >= last_begin]
