"""Why invocations wait: what records say, seen against the time, the paused functions and the live workers."""

from __future__ import annotations

from typing import Final

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_server.cluster.presence import Presence
from homing_server.functions.catalog import Catalog

_UNTIL_A_TIME: Final = frozenset({api.WAIT_REASON_SCHEDULED, api.WAIT_REASON_BACKOFF})


class WaitReasons:
    """Tells why invocations wait."""

    def __init__(self, catalog: Catalog, presence: Presence) -> None:
        self._catalog = catalog
        self._presence = presence

    def why(self, function: str) -> api.WaitReason.ValueType:
        """Return why an invocation of a function waits that is due."""
        if self._catalog.is_paused(function):
            return api.WAIT_REASON_PAUSED
        return api.WAIT_REASON_BACKLOG if self._presence.serves(function) else api.WAIT_REASON_NO_WORKER

    def explain(self, invocation: api.Invocation) -> api.Invocation:
        """Say of an invocation, as its record has it, why it waits now."""
        reason = invocation.wait_reason
        if not reason:
            return invocation
        if reason in _UNTIL_A_TIME:
            if invocation.wait_until.ToMicroseconds() > now_us():
                return invocation
            # Its time has come.
            invocation.ClearField("wait_until")
            invocation.wait_reason = self.why(invocation.function)
        elif reason == api.WAIT_REASON_BACKLOG or self._catalog.is_paused(invocation.function):
            invocation.wait_reason = self.why(invocation.function)
        return invocation
