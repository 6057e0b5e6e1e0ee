"""What takes longer than a test may: `make soak`. The fixtures are those of the tests."""

import logging

import pytest

pytest_plugins = ["homing.testing.pytest_plugin", "support.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=35.0, help="how long the long run takes (35)")
    parser.addoption("--storms", type=int, default=30, help="how many storms there are (30)")
    parser.addoption("--seed", type=int, default=1000, help="the seed of the first storm; the others count on (1000)")


def pytest_configure() -> None:
    # What clients try again while a server is away is no news here.
    logging.getLogger("homing").setLevel(logging.ERROR)
