"""homing deadletters, against servers that answer as told."""

from __future__ import annotations

import pytest

from homing import Client
from homing.testing import FakeServer
from homing.v1 import dead_letter_pb2, invocation_pb2
from homing.v1.dead_letter_service_pb2 import ListDeadLettersResponse
from support import records
from support.cli import Terminal, homing, objects, program, rows
from support.scripted_server import ScriptedServer


@pytest.fixture
def dead(homing_fake: FakeServer, homing_client: Client) -> list[str]:
    """The ids of dead letters, two of f and one of g; what is invoked from then on succeeds."""
    homing_fake.function("f").fails(400, times=2).returns("ok")
    homing_fake.function("g").times_out()
    return [homing_client.invoke_async(name).id for name in ("f", "f", "g")]


def letter() -> dead_letter_pb2.DeadLetter:
    failure = invocation_pb2.Failure(reason="HTTP_STATUS", message="it answered 503")
    delivery = invocation_pb2.Delivery(
        id="d1",
        kind=invocation_pb2.DELIVERY_KIND_ON_FAILURE,
        uri="https://example.com/failed",
        state=invocation_pb2.DELIVERY_STATE_DEAD,
    )
    for number in (1, 2):
        delivery.attempts.add(number=number, status_code=503, duration=records.span(0.25), failure=failure)
    return dead_letter_pb2.DeadLetter(
        id="d1",
        kind=dead_letter_pb2.DEAD_LETTER_KIND_DELIVERY,
        invocation_id="i1",
        function="figlet",
        state=invocation_pb2.INVOCATION_STATE_FAILED,
        time=records.stamp(records.CREATED),
        failure=failure,
        delivery=delivery,
    )


def test_they_are_listed(dead: list[str]) -> None:
    table = rows(homing("deadletters", "list"))
    [as_json] = objects(homing("deadletters", "list", "--function", "g", "--json").stdout)
    cut = homing("deadletters", "list", "-n", "2", "--kind", "invocation", "--since", "1h")

    assert table[0] == ["ID", "KIND", "FUNCTION", "TIME", "END", "TO", "FAILURE"]
    assert [(row[0], row[1], row[2], row[4]) for row in table[1:]] == [
        (dead[2], "INVOCATION", "g", "TIMED_OUT"),
        (dead[1], "INVOCATION", "f", "FAILED"),
        (dead[0], "INVOCATION", "f", "FAILED"),
    ]
    assert table[2][-1] == "it answered 400"
    assert (as_json["id"], as_json["kind"]) == (dead[2], "DEAD_LETTER_KIND_INVOCATION")
    assert len(rows(cut)) == 3
    assert cut.stderr == "homing: there are more than these 2; see --limit\n"
    assert rows(homing("deadletters", "list", "--kind", "DELIVERY")) == [table[0]]
    assert rows(homing("deadletters", "list", "--until", "1h")) == [table[0]]


@pytest.mark.usefixtures("scripted_target")
def test_one_of_a_delivery_is_shown_with_its_attempts(scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListDeadLetters", ListDeadLettersResponse(dead_letters=[letter()]))

    shown = rows(homing("deadletters", "show", "d1"))
    listed = rows(homing("deadletters", "list"))
    [as_json] = objects(homing("deadletters", "show", "d1", "--json").stdout)

    for line in (
        ["kind", "DELIVERY"],
        ["invocation", "i1"],
        ["end", "FAILED"],
        ["failure", "it answered 503 [HTTP_STATUS]"],
        ["asked for by", "ON_FAILURE"],
        ["to", "https://example.com/failed"],
    ):
        assert line in shown
    assert shown[-2:] == [["1", "0.25 s", "503", "it answered 503"], ["2", "0.25 s", "503", "it answered 503"]]
    assert listed[1][-2:] == ["https://example.com/failed", "it answered 503"]
    assert as_json["delivery"]["attempts"][1]["statusCode"] == 503


def test_one_of_an_invocation_is_shown(dead: list[str]) -> None:
    shown = rows(homing("deadletters", "show", dead[0]))
    none = homing("deadletters", "show", "none")

    assert ["failure", "it answered 400 [HTTP_STATUS]"] in shown
    assert (none.exit_code, none.stderr) == (4, "homing: there is no dead letter 'none'\n")


def test_they_are_redriven_by_id(homing_client: Client, dead: list[str]) -> None:
    done = homing("deadletters", "redrive", dead[0])
    again = homing("deadletters", "redrive", dead[0], dead[1])
    none = homing("deadletters", "redrive", dead[0], "--json")

    assert (done.exit_code, done.stdout) == (0, "1 dead letter: 1 run again, 0 delivered again\n")
    assert (again.exit_code, again.stdout) == (4, "1 dead letter: 1 run again, 0 delivered again\n")
    assert again.stderr == "homing: no dead letter has 1 of these ids\n"
    assert none.exit_code == 4
    assert objects(none.stdout) == [{"matched": 0, "rerun": 0, "redelivered": 0, "refused": 0}]
    assert none.stderr == "homing: no dead letter has this id\n"
    assert [record.rerun_of for record in homing_client.list_invocations(limit=2)] == [dead[1], dead[0]]


def test_many_are_redriven_once_somebody_has_said_yes(homing_client: Client, dead: list[str]) -> None:
    dry = homing("deadletters", "redrive", "--function", "f", "--dry-run")
    unasked = program("deadletters", "redrive", "--function", "f")
    homing_client.functions.delete("g")
    done = homing("deadletters", "redrive", "--kind", "INVOCATION", "--max-per-second", "5", "--yes")
    nothing = program("deadletters", "redrive", "--function", "f")

    assert dry.stdout == "2 dead letters would be tried again\n"
    assert unasked.returncode == 2
    assert b"--yes: is needed where there is no terminal to ask on" in unasked.stderr
    assert done.stdout == (
        "3 dead letters: 2 run again, 0 delivered again, 1 cannot, since their functions or payloads are gone\n"
    )
    assert (nothing.returncode, nothing.stdout) == (0, b"0 dead letters: 0 run again, 0 delivered again\n")
    assert [letter.id for letter in homing_client.dead_letters.list()] == [dead[2]]


def test_they_are_purged(homing_client: Client, dead: list[str]) -> None:
    dry = homing("deadletters", "purge", "--function", "f", "--dry-run", "--json")
    unasked = program("deadletters", "purge", "--function", "f")
    one = homing("deadletters", "purge", dead[0])
    rest = homing("deadletters", "purge", "--since", "1h", "-y", "--json")
    none = homing("deadletters", "purge", dead[0])

    assert objects(dry.stdout) == [{"matched": 2}]
    assert unasked.returncode == 2
    assert one.stdout == "1 dead letter: 1 forgotten\n"
    assert objects(rest.stdout) == [{"matched": 2, "purged": 2}]
    assert (none.exit_code, none.stderr) == (4, "homing: no dead letter has this id\n")
    assert list(homing_client.dead_letters.list()) == []
    assert homing_client.count().total == 3


def test_a_terminal_asks(homing_client: Client, dead: list[str]) -> None:
    no = Terminal("deadletters", "purge", "--function", "f")
    no.read_until(r"Forget 2 dead letters\? \[y/N\]")
    no.type("n\n")
    assert no.finish() == 1
    yes = Terminal("deadletters", "redrive", "--function", "f")
    yes.read_until(r"Try 2 dead letters again\? \[y/N\]")
    yes.type("y\n")

    assert yes.finish() == 0
    assert "2 dead letters: 2 run again" in yes.text
    assert [letter.id for letter in homing_client.dead_letters.list()] == [dead[2]]


@pytest.mark.parametrize("command", ["list", "show", "redrive", "purge"])
def test_the_help_has_examples(command: str) -> None:
    result = homing("deadletters", command, "--help")

    assert result.exit_code == 0
    assert f"  homing deadletters {command}" in result.stdout
