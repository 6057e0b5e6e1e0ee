"""The command that shows what functions wrote, with the fake server."""

from __future__ import annotations

import re
import subprocess

from homing import Client
from homing.testing import FakeServer
from support.cli import PATIENCE, PROGRAM, homing, objects


def test_lines_are_printed_without_colours(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f").logs("one\ttwo").logs("\x1b[31mred", stderr=True)
    call = homing_client.invoke_async("f")

    result = homing("logs", call.id)
    timed = homing("logs", call.id, "--timestamps")
    as_json = objects(homing("logs", call.id, "--json").stdout)

    assert (result.exit_code, result.stdout) == (0, "one\ttwo\nred\n")
    assert re.fullmatch(r"(20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  .+\n){2}", timed.stdout)
    assert [(line["stream"], line["text"], line["shared"]) for line in as_json] == [
        ("LOG_STREAM_STDOUT", "one\ttwo", False),
        ("LOG_STREAM_STDERR", "\x1b[31mred", False),
    ]


def test_lines_of_a_function_are_printed_whatever_it_served(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f").logs("one", "two")
    calls = [homing_client.invoke_async("f") for _ in range(2)]

    result = homing("logs", "--function", "f", "--tail", "3")
    as_json = objects(homing("logs", "--function", "f", "--since", "1h", "--json").stdout)
    later = homing("logs", "--function", "f", "--since", "2100-01-01")

    assert (result.exit_code, result.stdout, later.stdout) == (0, "two\none\ntwo\n", "")
    assert [(line["invocation_id"], line["text"]) for line in as_json] == [
        (call.id, text) for call in calls for text in ("one", "two")
    ]


def test_lines_of_a_function_are_followed(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f").logs("one")
    homing_client.invoke_async("f")
    with subprocess.Popen([*PROGRAM, "logs", "-f", "--function", "f"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        homing_client.invoke_async("f")
        assert process.stdout.readline() == b"one\n"
        process.terminate()
        process.wait(PATIENCE)


def test_lines_are_followed_to_the_end(homing_fake: FakeServer, homing_client: Client) -> None:
    function = homing_fake.function("f").logs("one").hold()
    call = homing_client.invoke_async("f")
    with subprocess.Popen([*PROGRAM, "logs", "-f", call.id], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        homing_fake.log(call.id, "two")
        assert process.stdout.readline() == b"two\n"
        function.release()
        assert process.wait(PATIENCE) == 0


def test_an_unknown_invocation_is_told(homing_fake: FakeServer) -> None:
    result = homing("logs", "none", "--follow")

    assert (result.exit_code, result.stderr) == (4, "homing: there is no invocation 'none'\n")
