"""REST with a service that notes what it is asked for, and answers as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from homing_server.auth.identity import Identity
from homing_server.auth.refusals import Refusals
from homing_server.errors import Code, ErrorReason
from homing_server.front.api.caller import caller
from homing_server.front.api.calls import Calls
from homing_server.front.api.requests import Readers
from homing_server.front.api.services import SERVICES
from homing_server.front.api.serving import Serving
from homing_server.front.http.rest.app import Rest
from homing_server.front.http.rest.routes import Route, shape_of
from support.asgi import Answer

METHODS: Mapping[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}


JSON = {"Content-Type": "application/json"}


PATIENCE = 20.0


class Service:
    """Notes what it is asked for, and answers as it is told to."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.contexts: list[Any] = []
        self.callers: list[Identity] = []
        self.error: Exception | None = None
        self.answers: list[Any] = []
        """What a stream has; or what is answered, one by one."""
        self.goes_on = asyncio.Event()
        """Cleared, it waits before it ends."""
        self.goes_on.set()
        self.waits = asyncio.Event()
        self.ended = asyncio.Event()

    def __iter__(self) -> Iterator[tuple[ServiceDescriptor, object]]:
        return ((service, Methods(self, service)) for service in SERVICES)

    async def end(self) -> None:
        self.waits.set()
        try:
            await self.goes_on.wait()
        finally:
            self.ended.set()
        if self.error is not None:
            raise self.error


class Methods:
    """The methods of one service."""

    def __init__(self, service: Service, described: ServiceDescriptor) -> None:
        self._service = service
        self._described = described

    def __getattr__(self, name: str) -> Any:
        method = self._described.methods_by_name[name]
        answer = GetMessageClass(method.output_type)
        service = self._service

        async def one(request: Any, context: Any) -> Message:
            service.contexts.append(context)
            service.callers.append(caller())
            if method.client_streaming:
                service.requests.extend([each async for each in request])
            else:
                service.requests.append(request)
            await service.end()
            return service.answers.pop(0) if service.answers else answer()

        async def many(request: Message, context: Any) -> AsyncIterator[Any]:
            service.requests.append(request)
            for each in service.answers or [answer()]:
                yield each
            await service.end()

        return many if method.server_streaming else one


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def rest(service: Service) -> Iterator[Rest]:
    readers = Readers()
    yield Rest(service, Serving(Calls(), Refusals()), readers)
    readers.close()


def target_of(route: Route, *values: str) -> str:
    """Return a path of a route with these values in it."""
    path = shape_of(route)
    for value in values or ["x"] * len(route.variables):
        path = path.replace("{}", quote(value, safe=""), 1)
    return path


def error_of(answer: Answer) -> dict[str, Any]:
    """Return an error, which has the shape that all have."""
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json["error"]
    assert set(error) == {"code", "message", "status", "details"}
    assert error["code"] == answer.status
    assert error["status"] in Code.__members__
    info = error["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "homing.dev"
    assert info["reason"] in ErrorReason.__members__
    return error


def violations(answer: Answer) -> dict[str, str]:
    return {
        violation["field"]: violation["description"]
        for detail in error_of(answer)["details"]
        for violation in detail.get("fieldViolations", ())
    }


SCHEDULE = "/v1/functions/resize:invokeAsync"
