"""What all tests share; the fixtures themselves are in support/."""

import signal
from pathlib import Path

import pytest

from support import processes

pytest_plugins = [
    "homing.testing.pytest_plugin",
    "support.delivery_bench",
    "support.fixtures",
    "support.guarded",
    "support.rest",
    "support.scripted_server",
    "support.sdk_driver",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail where a test was skipped")
    parser.addoption("--built", type=Path, help="the folder with the distributions to test; by default they are built")


def pytest_configure() -> None:
    processes.default_log_level = "debug"
    # A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
