"""Users of this host that commands run as, where the worker is root: each place for calls has one of its own.

So a command reads neither the worker's environment and memory nor the secrets of other functions.
"""

from __future__ import annotations

import os
from collections import deque

from homing_core.reasons import FailureReason
from homing_worker.runtime.base import StartFailedError


class CommandUsers:
    """Gives users away, the one that was given back longest ago first."""

    def __init__(self, ids: range) -> None:
        """Prepare to give away.

        :param ids: The UIDs, which are GIDs as well; nobody else should have them. None for the worker's own user.
            Where the worker is not root they are not used.
        """
        self.separate = bool(ids) and os.geteuid() == 0
        """Whether commands run as other users than the worker."""
        self._free = deque(ids)

    def take(self) -> int | None:
        """Return a user; None for the worker's own.

        :raises StartFailedError: All are in use.
        """
        if not self.separate:
            return None
        if not self._free:
            raise StartFailedError(FailureReason.START_FAILED, "all users of HOMING_COMMAND_USERS are in use")
        return self._free.popleft()

    def give_back(self, user: int | None) -> None:
        """Take a user back that is not used any more."""
        if user is not None:
            self._free.append(user)
