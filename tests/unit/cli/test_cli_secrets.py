"""homing secret and homing signing-key, against a fake server."""

from __future__ import annotations

from pathlib import Path

import pytest

from homing.testing import FakeServer
from homing.v1 import secret_service_pb2 as api
from support.cli import Terminal, homing, objects, program, rows
from support.scripted_server import ScriptedServer

VALUE = b"correct horse\n\0\xff"


def made(name: str = "smtp", version: int = 1) -> api.Secret:
    return api.Secret(name=name, version=version)


@pytest.mark.usefixtures("scripted_target")
def test_a_value_is_read_from_a_file_as_it_is(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(VALUE)
    scripted_server.script("CreateSecret", api.CreateSecretResponse(secret=made()))

    result = homing("secret", "create", "smtp", "--from-file", str(tmp_path / "value"))

    assert (result.exit_code, result.stdout) == (0, "secret smtp is made\n")
    (request,) = scripted_server.requests["CreateSecret"]
    assert (request.name, request.value) == ("smtp", VALUE)


@pytest.mark.usefixtures("scripted_target")
def test_a_value_is_read_from_standard_input_as_it_is(scripted_server: ScriptedServer) -> None:
    scripted_server.script("UpdateSecret", api.UpdateSecretResponse(secret=made(version=2)))

    done = program("secret", "update", "smtp", piped=VALUE)

    assert (done.returncode, done.stdout) == (0, b"secret smtp has its value number 2\n"), done.stderr
    (request,) = scripted_server.requests["UpdateSecret"]
    assert request.value == VALUE


@pytest.mark.usefixtures("scripted_target")
def test_a_value_that_is_typed_in_is_not_shown(scripted_server: ScriptedServer) -> None:
    scripted_server.script("CreateSecret", api.CreateSecretResponse(secret=made()))
    terminal = Terminal("secret", "create", "smtp")
    terminal.read_until("Value: ")
    terminal.type("correct horse\n")
    terminal.read_until("Repeat for confirmation: ")
    terminal.type("correct horse\n")

    assert terminal.finish() == 0, terminal.text
    (request,) = scripted_server.requests["CreateSecret"]
    assert request.value == b"correct horse"
    assert "correct" not in terminal.text


@pytest.mark.parametrize(
    ("size", "complaint"), [(64 * 1024 + 1, "at most 65536 bytes"), (None, "cannot read")], ids=["large", "missing"]
)
def test_what_cannot_be_a_value_is_refused(size: int | None, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "value"
    if size is not None:
        file.write_bytes(bytes(size))

    result = homing("secret", "create", "smtp", "--from-file", str(file))

    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_value_must_come_from_somewhere() -> None:
    done = program("secret", "create", "smtp")

    assert done.returncode == 2
    assert b"give the value by --from-file, or pipe it in" in done.stderr


def test_secrets_are_listed_and_removed(homing_fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_TARGET", homing_fake.target)
    for name in ("b", "a"):
        assert program("secret", "create", name, piped=VALUE).returncode == 0
    assert homing("deploy", "mailer", "--image", "mailer:1", "--secret", "a", "--secret", "b").exit_code == 0

    assert [row[:2] for row in rows(homing("secret", "list"))] == [["NAME", "VALUES"], ["a", "1"], ["b", "1"]]
    assert [item["name"] for item in objects(homing("secret", "list", "--json").stdout)] == ["a", "b"]
    assert ["secrets", "a b"] in rows(homing("functions", "mailer"))
    refused = homing("secret", "delete", "a")
    assert (refused.exit_code, "mailer" in refused.stderr) == (5, True)
    assert homing("remove", "mailer").exit_code == 0
    assert homing("secret", "delete", "a").stdout == "secret a is removed\n"
    assert homing("secret", "delete", "a").exit_code == 4


def test_signing_keys_are_rotated_listed_and_revoked(homing_fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_TARGET", homing_fake.target)
    homing_fake.function("billing")

    first = homing("signing-key", "rotate")
    own = homing("signing-key", "rotate", "--function", "billing", "--json")

    assert first.stdout.startswith("whsec_")
    assert "not shown again" in first.stderr
    (shown,) = objects(own.stdout)
    assert shown["key"].startswith("whsec_")
    key_id = shown["signingKey"]["id"]
    listed = rows(homing("signing-key", "list"))
    assert [row[1] for row in listed] == ["FUNCTION", "(all without their own)", "billing"]
    assert "whsec_" not in str(listed)
    (one,) = objects(homing("signing-key", "list", "--function", "billing", "--json").stdout)
    assert one["id"] == key_id
    assert homing("signing-key", "revoke", key_id).exit_code == 0
    assert homing("signing-key", "revoke", key_id).exit_code == 4


def test_what_makes_a_key_may_be_said_again(homing_fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_TARGET", homing_fake.target)
    words = ("keys", "create", "shop", "--scope", "read", "--expires", "2030-01-01", "--request-id", "once")

    first, again = homing(*words), homing(*words, "--json")

    assert first.exit_code == 0, first.stderr
    (shown,) = objects(again.stdout)
    assert (shown["secret"], shown["duplicate"]) == (first.stdout.strip(), True)
    assert shown["key"]["expireTime"].startswith(("2029-12-31T", "2030-01-01T"))
    assert homing(*words, "--function", "f").exit_code == 5
    assert homing("keys", "create", "x", "--scope", "read", "--expires", "soon").exit_code == 2

    rotate = ("signing-key", "rotate", "--request-id", "once")
    first, again = homing(*rotate), homing(*rotate, "--json")
    (shown,) = objects(again.stdout)
    assert (shown["key"], shown["duplicate"]) == (first.stdout.strip(), True)
