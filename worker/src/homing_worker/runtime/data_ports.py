"""Where the data ports of servers are: signed URLs say where they were when the work was published.

All servers of a store serve all its bodies, and sign alike: what was signed by one is good at each of them, wherever it
is by now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from homing_core.limits import CONTROL_SILENCE

_API: Final = "/v1/"
"""What paths of the data port begin with, after where the port is."""


class DataPorts:
    """The data ports that servers announced lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[str, float]] = {}
        """By server, where its data port is, and when it last said so."""

    def announced(self, server: str, base: str) -> None:
        """Note where a server says that its data port is; empty where it does not say."""
        if base:
            self._heard[server] = base, self._clock()

    def places(self, url: str) -> list[str]:
        """Return where a signed URL may be used, one URL for each place: the best one first.

        That is where it says, unless it is known that no server is there any more and others are known.
        """
        base, api, path = url.rpartition(_API)
        now = self._clock()
        self._heard = {server: heard for server, heard in self._heard.items() if now - heard[1] < CONTROL_SILENCE}
        live = sorted(self._heard.values(), key=lambda heard: -heard[1])
        bases = list(dict.fromkeys(each for each, _ in live))
        if base in bases:
            bases.remove(base)
            bases.insert(0, base)
        else:
            bases.append(base)
        return [each + api + path for each in bases]
