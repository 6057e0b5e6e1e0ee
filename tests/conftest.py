"""What all tests share; the fixtures themselves are in support/."""

import importlib.util

pytest_plugins = [
    name
    for name in ("support.docker", "support.processes", "support.rabbitmq", "support.proxy")
    if importlib.util.find_spec(name)
]
