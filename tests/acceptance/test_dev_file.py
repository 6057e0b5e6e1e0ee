"""`homing dev app.py`: the functions of a file, deployed as it is saved; the file is the one of README.md."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homing import Client, NotFoundError, RetryPolicy
from support.cli import homing
from support.curl import curl
from support.documents import ROOT, blocks_of
from support.processes import Dev

APP = next(block.text for block in blocks_of(ROOT / "README.md") if "homing_function" in block.text)
CURL = next(
    shlex.split(line)[2:]
    for block in blocks_of(ROOT / "README.md")
    for line in block.text.splitlines()
    if line.startswith("$ curl") and "/function/hello" in line
)
"""The arguments of curl in README.md."""
GREETING = "Hello world, this is attempt 1\n"
SECONDS = 2.0
"""A saved file answers within so many seconds."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    file = folder / "app.py"
    file.write_text(APP)
    return file


@pytest.fixture
def dev(file: Path, tmp_path: Path) -> Iterator[Dev]:
    made = Dev(tmp_path / "data", str(file))
    made.start()
    said(made, f"hello is deployed, revision 1: http://{made.http}/function/hello")
    yield made
    assert made.terminate() == 0


@pytest.fixture
def client(dev: Dev) -> Iterator[Client]:
    with Client(dev.target, timeout=60) as made:
        yield made


def said(dev: Dev, text: str) -> None:
    """Wait until it has said this."""
    dev.wait_for_log("", match=lambda line: text in str(line["text"]))


def save(file: Path, text: str) -> None:
    """Save a file as editors do: another one takes its place."""
    other = file.with_suffix(".tmp")
    other.write_text(text)
    other.replace(file)


def test_a_file_is_a_function_and_another_one_soon_after_it_is_saved(
    dev: Dev, client: Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMING_TARGET", dev.target)
    assert client.invoke("hello", "world").text == GREETING
    assert homing("invoke", "hello", "world").stdout == GREETING
    assert curl(CURL, server=dev.http).decode() == GREETING
    assert client.invoke_async("hello", "world").result(timeout=60).text == GREETING

    # Others may keep this machine busy for a while, so one of several has to do.
    took = []
    for word in ("Bonjour", "Hola", "Ciao", "Ahoj", "Salut", "Hej"):
        begun = time.monotonic()
        save(file, APP.replace("Hello", word))
        while not curl(CURL, server=dev.http).startswith(word.encode()):
            assert time.monotonic() - begun < 30
        took.append(time.monotonic() - begun)
        if took[-1] < SECONDS:
            break
    assert min(took) < SECONDS


def test_an_edit_that_does_not_run_is_told_and_leaves_what_is_deployed(dev: Dev, client: Client, file: Path) -> None:
    save(file, APP + "def broken(:\n")
    said(dev, "what was deployed before goes on")
    text = "\n".join(str(line["text"]) for line in dev.lines if not line["event"])
    assert f'File "{file}", line {APP.count(chr(10)) + 1}' in text
    assert "SyntaxError" in text
    assert "homing_function/" not in text
    assert client.invoke("hello", "world").text == GREETING

    save(file, APP.replace("Hello", "Mended"))
    said(dev, "hello is deployed, revision 2")
    assert client.invoke("hello", "world").text.startswith("Mended")


def test_what_a_function_writes_is_shown_and_a_traceback_names_the_users_line(
    dev: Dev, client: Client, file: Path
) -> None:
    body = 'print("said", name)\n    raise ValueError(name)\n'
    save(file, APP.replace('return f"Hello {name}, this is attempt {ctx.attempt}\\n"\n', body))
    said(dev, "hello is deployed, revision 2")
    call = client.invoke_async("hello", "this", retry_policy=RetryPolicy(max_attempts=1))
    ended = call.wait(timeout=60)
    said(dev, "hello | ValueError: this")

    assert ended.result is not None
    assert ended.result.text == "ValueError: this\n"
    lines = [line.text for line in call.logs(follow=True)]
    assert lines[0] == "said this"
    assert lines[1:3] == ["Traceback (most recent call last):", f'  File "{file}", line 7, in hello']
    assert lines[-1] == "ValueError: this"


def test_functions_come_and_go_with_the_file_and_what_lies_beside_it_counts(
    dev: Dev, client: Client, file: Path
) -> None:
    words = file.with_name("words.py")
    words.write_text('WORD = "first"\n')
    more = (
        "from words import WORD\n\n\n@function(concurrency=4)\nasync def word() -> str:\n    return WORD\n"
        '\n\n@function(name="numbers")\ndef count_up():\n    yield 1\n    yield 2\n'
    )
    save(file, APP + "\n\n" + more)
    said(dev, "word is deployed")
    said(dev, "numbers is deployed")
    assert client.invoke("word").text == "first"
    assert client.invoke("numbers").text == "1\n2\n"
    assert client.functions.get("word").concurrency == 4

    save(words, 'WORD = "second"\n')
    said(dev, "word is deployed, revision 2")
    assert client.invoke("word").text == "second"

    save(file, APP)
    said(dev, "word is removed")
    with pytest.raises(NotFoundError):
        client.invoke("word")


def test_a_file_that_does_not_run_at_first_is_served_once_it_does(tmp_path: Path, file: Path) -> None:
    file.write_text("import no_such_module\n")
    dev = Dev(tmp_path / "data", str(file))
    dev.start()
    try:
        said(dev, "ModuleNotFoundError: No module named 'no_such_module'")
        save(file, APP)
        said(dev, "hello is deployed, revision 1")
    finally:
        assert dev.terminate() == 0


def test_a_file_that_never_ends_to_load_is_given_up_when_it_is_saved_again(
    dev: Dev, client: Client, file: Path
) -> None:
    loads = file.with_name("loads")
    os.mkfifo(loads)
    save(file, f"import time\nopen({str(loads)!r}, 'w').close()\ntime.sleep(3600)\n")
    loads.read_bytes()  # until it is being run
    save(file, APP.replace("Hello", "Mended"))
    said(dev, "hello is deployed, revision 2")

    assert client.invoke("hello", "world").text.startswith("Mended")
    assert not [line for line in dev.lines if "was not loaded within" in str(line)]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    dev = Dev(tmp_path / "data", str(tmp_path / "none.py"))
    dev.launch()
    assert dev.wait() == 2
