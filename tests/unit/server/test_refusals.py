"""The audit log is told of refusals, and a flood of them does not fill it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from homing_server.auth import refusals as module
from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError, Code, ErrorReason, function_not_found, key_missing, rate_limited


async def test_the_first_is_told_at_once_and_the_others_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERVAL_SECONDS", 0.0)
    refusals = Refusals()
    with capture_logs() as lines:
        for _ in range(1000):
            refusals.note(key_missing(), peer="10.0.0.1", what="/homing.v1.X/Y")
        refusals.note(rate_limited("ci", 1.0, 0.5), peer="10.0.0.2", what="/homing.v1.X/Y")
        refusals.note(function_not_found("x"), peer="10.0.0.1", what="/homing.v1.X/Y")
        refusals.note(ValueError(), peer="10.0.0.1", what="/homing.v1.X/Y")
        assert [(line["peer"], line["reason"], line["number"], line["caller"]) for line in lines] == [
            ("10.0.0.1", "KEY_MISSING", 1, ""),
            ("10.0.0.2", "RATE_LIMITED", 1, "ci"),
        ]
        assert {line["event"] for line in lines} == {"audit_refused"}
        assert lines[0]["asked"] == "/homing.v1.X/Y"
        lines.clear()
        await refusals.tell()
        assert [(line["peer"], line["reason"], line["number"]) for line in lines] == [("10.0.0.1", "KEY_MISSING", 999)]
        assert "asked" not in lines[0], "they may have asked for anything"
        lines.clear()
        await refusals.tell()
        assert not lines


async def test_very_many_peers_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERVAL_SECONDS", 0.0)
    refusals = Refusals()
    with capture_logs() as lines:
        for number in range(5000):
            refusals.note(key_missing(), peer=str(number), what="/")
        await refusals.tell()
    assert len(lines) == 1001
    assert sum(line["number"] for line in lines) == 5000
    shared = lines[-1]
    assert (shared["peer"], shared["caller"], shared["reason"], shared["number"]) == ("", "", "", 4000)


async def test_it_tells_of_them_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
    await Refusals().tell()
    assert slept == [60.0]


@pytest.mark.parametrize("reason", ErrorReason)
def test_it_is_told_of_those_who_are_refused_at_the_door_and_of_no_others(reason: ErrorReason) -> None:
    with capture_logs() as lines:
        error = ApiError(code=Code.UNAUTHENTICATED, reason=reason, message="no")
        Refusals().note(error, peer="::1", what="/")
    at_the_door = {"KEY_MISSING", "KEY_INVALID", "KEY_EXPIRED", "RATE_LIMITED", "SERVER_BUSY"}
    assert [line["reason"] for line in lines] == ([reason] if reason in at_the_door else [])
