"""The commands that stop invocations and run them again, with the fake server."""

from __future__ import annotations

from pathlib import Path

import pytest

from homing import Client, InvocationState
from homing.testing import FakeServer
from support.cli import homing, objects, program


@pytest.fixture
def held(homing_fake: FakeServer, homing_client: Client) -> list[str]:
    """The ids of invocations of f, two that run and one that has ended."""
    function = homing_fake.function("f")
    ended = homing_client.invoke_async("f").id
    function.hold()
    return [*(homing_client.invoke_async("f", labels={"n": str(n)}).id for n in range(2)), ended]


def test_stop_tells_of_each(homing_client: Client, held: list[str]) -> None:
    result = homing("stop", *held, "none", "--reason", "enough")

    assert result.exit_code == 4
    assert result.stdout == f"{held[0]} STOPPING\n{held[1]} STOPPING\n"
    assert result.stderr == (
        f"homing: invocation {held[2]!r} has ended: it is SUCCEEDED\nhoming: there is no invocation 'none'\n"
    )
    asked = homing_client.get(held[0]).stop_request
    assert asked is not None
    assert asked.reason == "enough"


def test_stop_of_an_ended_one_is_refused(held: list[str]) -> None:
    assert homing("stop", held[2]).exit_code == 5


def test_stop_as_json_is_the_record(held: list[str]) -> None:
    [record] = objects(homing("stop", held[0], "--json").stdout)

    assert (record["id"], record["state"]) == (held[0], "INVOCATION_STATE_STOPPING")


def test_a_bulk_stop_needs_a_word_where_nobody_can_be_asked(homing_client: Client, held: list[str]) -> None:
    dry = homing("stop", "--function", "f", "--dry-run")
    unasked = program("stop", "--function", "f")
    one = homing("stop", "--label", "n=0", "--yes")
    rest = homing("stop", "-f", "f", "--state", "RUNNING", "-y", "--json")
    none = program("stop", "--function", "f")

    assert dry.stdout == "2 invocations would be stopped\n"
    assert unasked.returncode == 2
    assert b"--yes: is needed where there is no terminal to ask on" in unasked.stderr
    assert one.stdout == "1 invocation: 0 STOPPED, 1 STOPPING\n"
    assert objects(rest.stdout) == [{"matched": 1, "stopped": 0, "stopping": 1}]
    assert (none.returncode, none.stdout) == (0, b"0 invocations: 0 STOPPED, 0 STOPPING\n")
    assert homing_client.count().by_state == {InvocationState.SUCCEEDED: 1, InvocationState.STOPPED: 2}


def test_rerun_prints_the_new_id_or_the_result(homing_client: Client, upper: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "payload.txt"
    file.write_text("file")
    first = homing_client.invoke_async("upper", "one").id

    later = homing("rerun", first, "--request-id", "r1")
    same = program("rerun", first, "--wait", piped=b"not read")
    edited = homing("rerun", first, "-d", f"@{file}", "--wait")
    failed = homing("rerun", first, "-d", "bad", "--wait")
    [as_json] = objects(homing("rerun", first, "--json").stdout)

    record = homing_client.get(later.stdout.strip(), include_payload=True)
    assert (record.rerun_of, record.payload and record.payload.data) == (first, b"one")
    assert (same.stdout, edited.stdout) == (b"ONE", "FILE")
    assert edited.stderr.startswith("homing: accepted as 0190")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "ValueError: this is bad" in failed.stderr
    assert as_json["rerunOf"] == first
    assert homing("rerun", "none").exit_code == 4


def test_rerun_of_a_running_one_is_refused(held: list[str]) -> None:
    result = homing("rerun", held[0])

    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == f"homing: invocation {held[0]!r} has not ended: it is RUNNING\n"


def test_many_run_again(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f").fails(400)
    homing_fake.function("gone").fails(400)
    for name in ("f", "f", "gone"):
        homing_client.invoke_async(name)
    homing_client.functions.delete("gone")
    failed = ["--state", "FAILED", "--id-prefix", "0190"]
    homing_fake.function("f").returns("ok")

    dry = homing("rerun", *failed, "--dry-run", "--json")
    unasked = program("rerun", *failed)
    done = homing("rerun", *failed, "--yes", "--max-per-second", "5", "--request-id", "r1")
    again = homing("rerun", *failed, "--yes", "--max-per-second", "5", "--request-id", "r1", "--json")
    other = homing("rerun", *failed, "--yes", "--request-id", "r1")

    assert objects(dry.stdout) == [{"matched": 3}]
    assert unasked.returncode == 2
    assert done.stdout == "3 invocations: 2 run again, 1 cannot, since their functions or payloads are gone\n"
    assert objects(again.stdout) == [{"matched": 3, "accepted": 2, "refused": 1}]
    assert (other.exit_code, other.stderr) == (5, "homing: request_id 'r1' was used for another request\n")
    assert homing_client.count(states=[InvocationState.SUCCEEDED]).total == 2
