"""The area `/v1/` of the HTTP port: finds the method that a request is for, and lets it in or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from homing_server.auth.identity import Identity
from homing_server.errors import ApiError, Code, ErrorReason, key_missing, shown
from homing_server.front.api.access import admit
from homing_server.front.api.requests import Readers
from homing_server.front.api.serving import Serving
from homing_server.front.http.areas import Area
from homing_server.front.http.rest.calls import RestMethod
from homing_server.front.http.rest.documents import DOCUMENTS
from homing_server.front.http.rest.errors import method_not_allowed, refusal
from homing_server.front.http.rest.routes import PREFIX, ROUTES, read_path, shape_of

T = TypeVar("T")


class Rest:
    """Serves the API as an ASGI application; the scope says who calls."""

    def __init__(
        self, services: Iterable[tuple[ServiceDescriptor, object]], serving: Serving, readers: Readers
    ) -> None:
        """Put the routes together.

        :param services: Descriptions of services, and what serves them.
        :param serving: Serves calls.
        :param readers: Read requests.
        """
        self._serving = serving
        self._paths: dict[str, dict[str, RestMethod]] = {}
        for service, behaviours in services:
            for described in service.methods:
                route = ROUTES.get(f"/{service.full_name}/{described.name}")
                if route is not None:
                    behaviour = getattr(behaviours, described.name)
                    method = RestMethod(route, described, behaviour, serving, readers)
                    self._paths.setdefault(shape_of(route), {})[route.verb] = method

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is served here."""
        return (Area(path=PREFIX, app=self, anonymous=True, counts=True, refusal=refusal),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request.

        :raises ClientDisconnect: The client has gone away, or cannot be told any more.
        """
        try:
            response = await self._serve(scope, receive, send)
        except ApiError as error:
            response = refusal(error)
        if response is not None:
            await response(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Serve a request; return the answer if it has not been sent.

        :raises ApiError: It fails.
        """
        identity: Identity = scope["state"]["identity"]
        path, values = read_path(scope["raw_path"])
        if not identity.known and path not in self._paths:
            # Who may not know is not told what is here and what is not.
            raise key_missing()
        if path in DOCUMENTS:
            return _verb(scope, {"GET": DOCUMENTS[path]}).response()
        verbs = self._paths.get(path)
        if verbs is None:
            raise _nothing_here(scope["path"])
        method = _verb(scope, verbs)
        try:
            admit(identity, method.name)
        except ApiError as error:
            host = scope["client"][0] if scope["client"] else ""
            raise self._serving.failed(error, method=method.name, host=host) from None
        await method.serve(scope, receive, send, values)
        return None


def _verb(scope: Scope, verbs: Mapping[str, T]) -> T:
    """Return what a request asks for of all that may be done with its path.

    :raises ApiError: UNIMPLEMENTED: 405.
    """
    found = verbs.get(scope["method"])
    if found is None:
        allowed = ", ".join(sorted(verbs))
        raise method_not_allowed(allowed)
    return found


def _nothing_here(path: str) -> ApiError:
    message = f"nothing is served under {shown(path)}: /v1/openapi.json tells what is"
    return ApiError(code=Code.NOT_FOUND, reason=ErrorReason.PATH_NOT_FOUND, message=message)
