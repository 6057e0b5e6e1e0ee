"""Whatever the options and arguments of the command are given: it ends with a word, and never with a traceback."""

from __future__ import annotations

from collections.abc import Iterator

import click
import grpc
import pytest
import typer.main
from click.testing import CliRunner, Result

from homing.testing import FakeServer
from homing_cli.main import app

VALUES = (
    *("", "-1", "0", "nan", "inf", "1e308", "9" * 400, "9" * 5000, "99999999d", "99999999999999999999h"),
    *("0001-01-01", "9999-12-31T23:59:59.999999-14:00", "\udcff", "a=\udcff", "\udcff=a", "é", "@", "@/nowhere"),
    *("https://[", "localhost:99999", "x" * 70_000),
)
ENDS = {0, 1, 2, 3, 4, 5}
APART = 4
"""Options take every value so far apart, each from the next on: all options with all values would take minutes."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with what is typed to reach it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, (*path, name))  # type: ignore[arg-type]
        elif name != "dev":  # it would run
            yield (*path, name), command


PROGRAM = typer.main.get_command(app)
"""The command, made once: that takes longer than to run it."""
COMMANDS = dict(commands(PROGRAM))  # type: ignore[arg-type]


def homing(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(PROGRAM, arguments)  # type: ignore[arg-type]  # typer has a copy of click


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with FakeServer() as fake, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("written"))
        patch.setenv("HOMING_TARGET", fake.target)
        # A watch of what never comes would never end.
        fake.refuse("WatchResults", grpc.StatusCode.INVALID_ARGUMENT, times=100_000)
        fake.function("f")
        yield fake


def runs(command: click.Command) -> Iterator[list[str]]:
    """Yield what is typed behind a command: its options and arguments, of which one after the other takes values."""
    needed = [
        "f" if parameter.name in {"name", "function"} else "01900000-0000-7000-8000-000000000001"
        for parameter in command.params
        if isinstance(parameter, click.Argument) and parameter.required
    ]
    for number, parameter in enumerate(command.params):
        values = VALUES[number % APART :: APART]
        if isinstance(parameter, click.Argument):
            yield from ([value] for value in values)
        elif not getattr(parameter, "is_flag", False) and parameter.name != "help":
            for value in values:
                yield [*needed, f"{parameter.opts[0]}={value}" if parameter.opts[0].startswith("--") else value]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_value_ends_with_a_word(path: tuple[str, ...]) -> None:
    for arguments in runs(COMMANDS[path]):
        result = homing(*path, *arguments)
        said = f"{path} {arguments!r:.200}: {result.exception!r} {result.output!r:.500}"
        assert result.exception is None or isinstance(result.exception, SystemExit), said
        assert result.exit_code in ENDS, said
        assert "Traceback" not in result.output, said


@pytest.mark.parametrize("option", ["--target", "--tls-ca", "--tls-cert", "--tls-key"])
def test_so_does_what_stands_before_the_command(option: str) -> None:
    for value in VALUES:
        result = homing(option, value, "list")
        assert result.exception is None or isinstance(result.exception, SystemExit), (value, result.exception)
        assert result.exit_code in ENDS


@pytest.mark.parametrize("value", ["99999999d", "0001-01-01", "9999-12-31T23:59:59-23:00"])
@pytest.mark.parametrize(
    "option", ["--since", "--until", "--started-since", "--started-until", "--ended-since", "--ended-until"]
)
def test_a_time_before_all_times_is_named(option: str, value: str) -> None:
    result = homing("list", option, value)

    assert result.exit_code == 2
    assert f"Invalid value for '{option}': '{value}' is a time before the year 1 or after the year 9999" in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_usage_has_brackets_once(path: tuple[str, ...]) -> None:
    usage = homing(*path, "--help").stdout.split("\n\n")[0]

    assert "[[" not in usage
    assert "]]" not in usage


@pytest.mark.parametrize("path", [(), *COMMANDS, ("dev",)], ids=" ".join)
def test_help_has_no_marks_of_its_layout(path: tuple[str, ...]) -> None:
    result = homing(*path, "--help")

    assert result.exit_code == 0
    assert "\\b" not in result.stdout
    assert "\b" not in result.stdout
