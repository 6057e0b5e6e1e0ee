"""The areas of the HTTP port: each has its paths, serves them as an ASGI application, and says who is let in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from homing_server.errors import ApiError
from homing_server.front.http.status import refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """What is served under some paths."""

    path: str
    """The path, or with a slash at its end what all paths begin with."""
    app: ASGIApp
    """Finds who calls as `identity` in the `state` of the scope, unless the area is open."""
    open: bool = False
    """Whether nobody is asked for a key, and calls go on while the server stops: health, and what is signed."""
    anonymous: bool = False
    """Whether who shows no key is let in too: the area knows what is public."""
    counts: bool = False
    """Whether it counts its calls, for its bounds and those of keys, and ends those of revoked keys, itself."""
    operates: bool = False
    """Whether it is for operators, who get in where others do not."""
    refusal: Callable[[ApiError], Response] = refusal
    """How it tells that somebody is not let in."""


def routed(routes: Sequence[BaseRoute], *, refuse: Callable[[ApiError], Response] = refusal) -> Starlette:
    """Return an application of routes that match as they are written.

    :param refuse: How errors of theirs are told.
    """

    async def answer(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError), "it is asked for no others"
        return refuse(error)

    app = Starlette(routes=routes, exception_handlers={ApiError: answer})
    app.router.redirect_slashes = False
    return app
