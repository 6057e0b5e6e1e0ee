"""Tells the audit log of calls that were refused at the door: for want of a key, or since there were too many.

Whoever is refused may come again thousands of times in a second. So the first refusal of its kind is told at once, the
others are counted, and told with their number once in a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from homing_server.auth import audit
from homing_server.errors import ApiError, ErrorReason

_INTERVAL_SECONDS: Final = 60.0
_MOST_KINDS: Final = 1000
"""So many kinds at the most are told apart in an interval."""
_TOLD: Final = frozenset(
    {
        ErrorReason.KEY_MISSING,
        ErrorReason.KEY_INVALID,
        ErrorReason.KEY_EXPIRED,
        ErrorReason.RATE_LIMITED,
        ErrorReason.SERVER_BUSY,
    }
)


@dataclass(frozen=True, slots=True)
class _Kind:
    peer: str
    caller: str
    reason: str


_OTHERS: Final = _Kind(peer="", caller="", reason="")
"""Those for which there was no room."""


class Refusals:
    """Counts refusals."""

    def __init__(self) -> None:
        self._more: Counter[_Kind] = Counter()

    def note(self, error: Exception, *, peer: str, what: str) -> None:
        """Note that a call failed: where it was refused at the door, the audit log is told.

        :param peer: The host that it came from.
        :param what: The method or path that was asked for.
        """
        if not isinstance(error, ApiError) or error.reason not in _TOLD:
            return
        caller = error.metadata.get("key", "")
        kind = _Kind(peer=peer, caller=caller, reason=error.reason)
        if kind in self._more:
            self._more[kind] += 1
        elif len(self._more) >= _MOST_KINDS:
            self._more[_OTHERS] += 1
        else:
            self._more[kind] = 0
            audit.log_refusal(peer=peer, caller=caller, reason=error.reason, what=what, number=1)

    async def tell(self) -> None:
        """Tell of those that were only counted. One step of a loop."""
        await asyncio.sleep(_INTERVAL_SECONDS)
        more, self._more = self._more, Counter()
        for kind, number in more.items():
            if number:
                audit.log_refusal(peer=kind.peer, caller=kind.caller, reason=kind.reason, what="", number=number)
