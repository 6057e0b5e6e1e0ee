"""What all tests share; the fixtures themselves are in support/."""

import importlib.util

pytest_plugins = [
    name
    for name in ("support.fixtures", "support.rabbitmq", "support.proxy", "support.scripted_server")
    if importlib.util.find_spec(name)
]
