"""What people meet every day at a terminal and in pipes, with the fake server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from homing import Client
from homing.testing import FakeServer
from homing_cli import output
from homing_cli.main import SETTINGS
from support.cli import PATIENCE, Terminal, homing, program

SDK = Path(__file__).resolve().parents[3] / "sdk" / "src" / "homing"
BINARY = bytes(range(256)) * 4
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def lines(terminal: Terminal) -> list[str]:
    """Return what a terminal showed, without colours."""
    assert terminal.finish() == 0, terminal.text
    return [line.rstrip("\r") for line in ESCAPES.sub("", terminal.text).splitlines()]


@pytest.fixture
def listed(homing_fake: FakeServer, homing_client: Client) -> str:
    """The id of an invocation that failed with a long message of several lines."""
    homing_fake.function("a-function-with-a-name").fails(400, "x")
    call = homing_client.invoke_async("a-function-with-a-name")
    for record in (*homing_fake._state.store.records.values(), *homing_fake._state.store.changes):
        record.failure.message = "the first line\n  the second line\r\n" + "and more " * 40
    return call.id


@pytest.mark.parametrize(
    ("command", "columns"), [("list", 60), ("list", 80), ("list", 200), ("functions", 60), ("deadletters list", 80)]
)
def test_a_table_has_a_line_for_each_record_whatever_the_width(listed: str, columns: int, command: str) -> None:
    shown = lines(Terminal(*command.split(), COLUMNS=str(columns)))

    assert len(shown) == 2, shown
    assert all(len(line) <= columns for line in shown)
    if command != "functions":
        assert shown[1].startswith(listed)


def test_what_has_no_room_is_cut_or_left_out(listed: str) -> None:
    narrow, wide = lines(Terminal("list", COLUMNS="80")), lines(Terminal("list", COLUMNS="200"))

    assert narrow[0].split()[:3] == ["ID", "FUNCTION", "STATE"]
    assert "DETAIL" not in narrow[0]
    assert wide[0].split() == ["ID", "FUNCTION", "STATE", "ACCEPTED", "TOOK", "ATTEMPTS", "DETAIL"]
    assert wide[1].endswith("…")


def test_a_piped_table_has_a_line_for_each_record_and_all_of_it(listed: str) -> None:
    header, row = program("list").stdout.decode().splitlines()

    assert header.split() == ["ID", "FUNCTION", "STATE", "ACCEPTED", "TOOK", "ATTEMPTS", "DETAIL"]
    assert row.endswith("the first line the second line " + ("and more " * 40).strip())
    fields = program("get", listed).stdout.decode().splitlines()
    assert sum(line.startswith("failure ") for line in fields) == 1
    assert not any(line.startswith(" ") for line in fields)


@pytest.mark.parametrize(
    ("natural", "width", "expected"),
    [
        ([36, 6, 9, 40], 200, {0: 36, 1: 6, 2: 9, 3: 40}),
        ([36, 6, 9, 40], 80, {0: 36, 1: 6, 2: 9, 3: 20}),
        ([36, 6, 9, 40], 67, {0: 36, 1: 6, 2: 9}),
        ([36, 6, 9, 4], 67, {0: 36, 1: 6, 2: 9, 3: 4}),
        ([36, 60, 9, 40], 60, {0: 36, 1: 9, 2: 9}),
        ([36, 6, 9, 40], 20, {0: 20}),
    ],
    ids=str,
)
def test_which_columns_fit(natural: list[int], width: int, expected: dict[int, int]) -> None:
    assert output.fitted(["ID", "FUNCTION", "STATE", "DETAIL"], natural, width) == expected


def test_what_is_no_text_is_not_for_a_terminal(homing_fake: FakeServer, homing_client: Client, tmp_path: Path) -> None:
    homing_fake.function("photo").returns(BINARY, content_type="image/png")
    call = homing_client.invoke_async("photo")
    file = tmp_path / "photo.png"

    [told] = lines(Terminal("invoke", "photo", "x"))
    shown = lines(Terminal("get", call.id))
    written = [homing("invoke", "photo", "x", "--output", str(file)), homing("get", call.id, "-o", str(file))]

    assert told == "homing: 1,024 bytes of image/png: --output FILE writes it to a file, and so does > FILE"
    assert shown[-1] == "1,024 bytes of image/png: --output FILE writes it to a file"
    assert program("invoke", "photo", "x").stdout == BINARY
    for result in written:
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == f"homing: wrote 1,024 bytes of image/png to {file}\n"
    assert file.read_bytes() == BINARY


def test_an_output_that_cannot_be_written_is_named(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f").hold()
    waiting = homing_client.invoke_async("f")

    result = homing("get", waiting.id, "--output", "/nowhere/x")
    homing_fake.function("f").release()
    again = homing("get", waiting.id, "--output", "/nowhere/x")

    assert (result.exit_code, result.stderr) == (5, f"homing: {waiting.id} has no result: it is RUNNING\n")
    assert again.exit_code == 2
    assert "cannot write /nowhere/x: No such file or directory" in " ".join(again.stderr.split())


def test_text_stays_as_it_was_in_lines(upper: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"\xef\xbb\xbfone\ttab\none\rreturn\r\na\xef\xbb\xbfb\n\nend")

    run = program("invoke", "upper", "--each", file, "--concurrency", "1")

    assert (run.returncode, run.stdout) == (0, b"ONE\tTAB\nONE\rRETURN\nA\xef\xbb\xbfB\n\nEND\n"), run.stderr
    assert [call.text for call in upper.calls()] == ["one\ttab", "one\rreturn", "a\ufeffb", "", "end"]


def test_bytes_stay_as_they_were_in_lines(homing_fake: FakeServer) -> None:
    homing_fake.function("f").returns(b"\x00\xff\x1b[2J\none\n", content_type="a/b")

    assert program("invoke", "f", "--each", "-", piped=b"x\n").stdout == b"\x00\xff\x1b[2J\\none\n"
    shown = Terminal("invoke", "f", "--each", "-")
    shown.type("x\n\x04")
    assert shown.finish() == 0
    assert "\\x1b[2J" in shown.text


def test_each_line_has_destinations(upper: FakeServer) -> None:
    run = program(
        *("invoke", "upper", "--each", "-", "--on-success", "function:upper", "--on-failure", "amqp:failed/upper"),
        *("--callback-url", "https://example.org/hook", "--callback-header", "X-Job=7"),
        piped=b"one\ntwo\n",
    )

    assert (run.returncode, run.stdout) == (0, b"ONE\nTWO\n"), run.stderr
    for call in upper.calls():
        assert (call.on_success, call.on_failure) == (("function:upper",), ("amqp:failed/upper",))
        assert (call.callback_url, call.callback_headers["x-job"]) == ("https://example.org/hook", "7")


def test_it_says_what_it_waits_for(upper: FakeServer) -> None:
    reader, writer = os.pipe()
    main, side = os.openpty()
    command = [sys.executable, "-c", "from homing_cli.main import main; main()", "invoke", "upper"]
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, stderr=side) as process:
        os.close(side)
        assert b"homing: waiting for the payload on standard input; what is piped in has not ended" in os.read(
            main, 999
        )
        os.write(writer, b"hello")
        os.close(writer)
        assert process.stdout is not None
        assert process.stdout.read() == b"HELLO"
    os.close(reader)
    os.close(main)
    assert process.returncode == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("Ctrl-C", 130), ("\x04", 1)], ids=repr)
def test_a_function_with_work_waiting_is_removed_after_a_question(
    homing_fake: FakeServer, homing_client: Client, answer: str, code: int
) -> None:
    homing_fake.function("f")
    homing_client.functions.pause("f")
    waiting = homing_client.invoke_async("f")
    terminal = Terminal("remove", "f")
    terminal.read_until(r"1 waiting invocation of f will end INVALID. Remove it\? \[y/N\]: ")

    if answer == "Ctrl-C":
        terminal.interrupt_question()
    else:
        terminal.type(answer)

    assert terminal.finish() == code, terminal.text
    assert "Traceback" not in terminal.text
    assert str(homing_client.get(waiting.id).state) == ("INVALID" if code == 0 else "ENQUEUED")


def test_where_nobody_can_be_asked_a_word_is_needed(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f")
    homing_fake.function("idle")
    homing_client.functions.pause("f")
    homing_client.invoke_async("f")

    refused, idle = program("remove", "f"), program("remove", "idle")
    told = program("remove", "f", "--yes")

    assert refused.returncode == 2
    assert b"--yes: is needed where there is no terminal to ask on" in refused.stderr
    assert (idle.returncode, told.returncode) == (0, 0)
    assert told.stdout == b"f is removed; 1 waiting invocation ended INVALID\n"


def test_an_interruption_at_the_start_is_quiet() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "from homing_cli.entry import main; main()", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        begun = False
        for line in process.stderr:  # it tells of each module that it has imported
            if begun:
                break
            begun = line.rstrip().endswith(b"homing_cli.entry")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert b"Traceback" not in stderr


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("localhost:99999", 2, "target: must have a port from 1 to 65535, has '99999'"),
        ("localhost", 2, "target: must be HOST:PORT, as in localhost:50051"),
        ("https://{fake}", 2, "target: the server there speaks no TLS; without it the target is {fake}"),
    ],
)
def test_a_wrong_target_is_told_in_one_line(homing_fake: FakeServer, target: str, code: int, message: str) -> None:
    begun = time.monotonic()
    run = program("list", "--target", target.format(fake=homing_fake.target))

    told = run.stderr.decode().splitlines()
    assert run.returncode == code
    assert message.format(fake=homing_fake.target) in told[-1]
    assert len(told) == 1, told
    assert time.monotonic() - begun < 5


def test_a_misspelt_setting_is_told(homing_fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_TARGTE", "localhost:1")
    monkeypatch.setenv("HOMING_GRPC_LISTEN", "localhost:1")  # a server's, which may be in the same environment
    monkeypatch.setenv("HOMING_ROOT_KEY", "x")

    result = homing("list")

    assert (result.exit_code, result.stderr) == (
        0,
        "homing: HOMING_TARGTE is no setting; is HOMING_TARGET meant?\n",
    )


def test_the_settings_are_those_that_clients_read() -> None:
    read = {name for file in SDK.glob("_core/*.py") for name in re.findall(r'"(HOMING_[A-Z_]+)"', file.read_text())}

    assert read == set(SETTINGS)
