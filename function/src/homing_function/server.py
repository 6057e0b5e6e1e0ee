"""The process that serves a function: its socket, and its end."""

from __future__ import annotations

import socket
from types import FrameType
from typing import Any, Final

import uvicorn

from homing_function.app import App
from homing_function.declaration import Function

_BACKLOG: Final = 2048
_KEEP_ALIVE: Final = 75
"""Seconds that an idle connection stays open: longer than callers keep theirs, so that no request meets its end."""


class Server(uvicorn.Server):
    """A server that says, from the first signal on, that it is stopping."""

    def __init__(self, app: App, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: take no more connections, let calls finish."""
        self._app.stopping = True
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, for all who come.

    :raises OSError: It cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except BaseException:
        listening.close()
        raise
    return listening


def serve(function: Function[Any, Any], listening: socket.socket, *, grace: float) -> None:
    """Serve a function until the process is told to stop by SIGTERM or SIGINT.

    :param grace: Seconds that calls have to finish then.
    """
    app = App(function)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    Server(app, config).run(sockets=[listening])
