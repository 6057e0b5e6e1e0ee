"""What the tests of the command share."""

from __future__ import annotations

import pytest

from homing.testing import FakeCall, FakeServer
from support.scripted_server import ScriptedServer


@pytest.fixture
def scripted_target(monkeypatch: pytest.MonkeyPatch, scripted_server: ScriptedServer) -> None:
    """Let the command find the server that answers as told."""
    monkeypatch.setenv("HOMING_TARGET", scripted_server.target)
    monkeypatch.delenv("HOMING_API_KEY", raising=False)
    monkeypatch.delenv("HOMING_TLS_CA", raising=False)


@pytest.fixture
def upper(homing_fake: FakeServer) -> FakeServer:
    """A fake server with a function that fails where it is told "bad"."""

    def answer(call: FakeCall) -> str:
        if call.text == "bad":
            raise ValueError("this is bad")
        return call.text.upper()

    homing_fake.function("upper").answers(answer)
    return homing_fake
