"""What looks through all logs for what is confidential finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from homing_core import signing
from homing_server.auth import key_format
from support.confidential import betrayed, confidential
from support.processes import HomingProcess, ProcessError


def test_keys_are_known_by_their_form() -> None:
    assert betrayed(json.dumps({"event": "call", "authorization": f"Bearer {key_format.new_key().text}"}))
    assert betrayed(f"signing with {signing.show_key(signing.new_key())}")
    assert not betrayed('{"event": "key_created", "id": "hk_0193", "name": "ci"}')


def test_a_process_that_logs_a_secret_fails_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = confidential("the value of a secret")
    (tmp_path / "talkative.py").write_text(
        f"import sys\ndef main() -> None:\n    print({json.dumps(json.dumps({'event': secret}))}, file=sys.stderr)\n"
    )
    process = HomingProcess("talkative", "talkative", {"PYTHONPATH": str(tmp_path)})
    process.launch()
    with pytest.raises(ProcessError, match="talkative logged what is confidential"):
        process.wait()
    assert process.wait() == 0
