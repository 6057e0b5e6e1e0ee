"""The area `/system/` of the HTTP port: each request becomes a call of the API, with its scopes, bounds and audit."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from homing.v1.function_pb2 import Function
from homing.v1.function_service_pb2 import (
    DeleteFunctionRequest,
    DeployFunctionRequest,
    GetFunctionRequest,
    ListFunctionsRequest,
    ScaleFunctionRequest,
)
from homing.v1.secret_service_pb2 import (
    CreateSecretRequest,
    DeleteSecretRequest,
    ListSecretsRequest,
    UpdateSecretRequest,
)
from homing_core import limits
from homing_server import __version__
from homing_server.auth.identity import Identity
from homing_server.cluster.presence import Presence
from homing_server.errors import ApiError, Code, Violation, invalid_request
from homing_server.front.api.access import admit
from homing_server.front.api.services import Services
from homing_server.front.api.serving import Method, Serving
from homing_server.front.http.areas import Area, routed
from homing_server.front.http.rest.bodies import read_object
from homing_server.front.http.rest.client import Client
from homing_server.front.http.status import error_headers, status_code
from homing_server.front.http.system.log_stream import LogQuery, LogStream
from homing_server.front.http.system.shapes import (
    NAMESPACE,
    Json,
    Reader,
    deployment_of,
    function_name,
    secret_value,
    status_of,
)
from homing_server.functions.catalog import Catalog
from homing_server.logs.tail import LogTails
from homing_server.store.engine import Database
from homing_server.store.state_counts import count_functions

_AREA: Final = "/system/"
_FUNCTIONS: Final = "/homing.v1.FunctionService/"
_SECRETS: Final = "/homing.v1.SecretService/"
_LOGS: Final = "/homing.v1.LogService/TailLogs"
_MAX_BODY: Final = 512 * limits.KIB
"""A function has 256 KiB in all, and JSON takes more room than what it stands for."""
_MAX_PARTS: Final = 5_000
_PAGE_SIZE: Final = 1_000
_COUNTS_SECONDS: Final = 10.0
"""For so long the numbers of invocations are not counted again."""

_Handler = Callable[[Request], Awaitable[Response | LogStream]]


class System:
    """Serves OpenFaaS's administration."""

    def __init__(
        self,
        services: Services,
        serving: Serving,
        *,
        catalog: Catalog,
        presence: Presence,
        database: Database,
        tails: LogTails,
    ) -> None:
        """Prepare to serve.

        :param services: What does it.
        :param serving: Serves calls of them.
        :param catalog: Knows functions.
        :param presence: Knows what runs at workers.
        :param tails: Read logs.
        """
        self._serving = serving
        self._catalog = catalog
        self._presence = presence
        self._database = database
        self._tails = tails
        self._counts: dict[str, int] = {}
        self._counted_at = -_COUNTS_SECONDS
        self._methods = {
            f"{service.full_name}/{method.name}": Method.of(
                f"/{service.full_name}/{method.name}", getattr(behaviours, method.name)
            )
            for service, behaviours in services
            for method in service.methods
            if f"/{service.full_name}/" in {_FUNCTIONS, _SECRETS}
        }

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is served here."""
        routes: list[tuple[str, str, _Handler]] = [
            ("GET", "functions", self._list),
            ("POST", "functions", self._deploy),
            ("PUT", "functions", self._update),
            ("DELETE", "functions", self._delete),
            ("GET", "function/{name}", self._describe),
            ("POST", "scale-function/{name}", self._scale),
            ("GET", "info", _info),
            ("GET", "secrets", self._list_secrets),
            ("POST", "secrets", self._create_secret),
            ("PUT", "secrets", self._update_secret),
            ("DELETE", "secrets", self._delete_secret),
            ("GET", "logs", self._logs),
            ("GET", "namespaces", _namespaces),
        ]
        paths: dict[str, dict[str, _Handler]] = {}
        for verb, path, handler in routes:
            paths.setdefault(path, {})[verb] = handler
        app = routed(
            [Route(_AREA + path, _by_verb(verbs), methods=list(verbs)) for path, verbs in paths.items()],
            refuse=_refusal,
        )
        return (Area(path=_AREA, app=app, counts=True, operates=True, refusal=_refusal),)

    async def _list(self, request: Request) -> Response:
        _check_namespace(request)
        counts = await self._invocations()
        listed: list[Json] = []
        page = ListFunctionsRequest(page_size=_PAGE_SIZE)
        while True:
            answer = await self._call(request, _FUNCTIONS + "ListFunctions", page)
            listed += [self._status(function, counts) for function in answer.functions]
            if not answer.next_page_token:
                return JSONResponse(listed)
            page.page_token = answer.next_page_token

    async def _describe(self, request: Request) -> Response:
        _check_namespace(request)
        asked = GetFunctionRequest(name=function_name(request.path_params["name"]))
        answer = await self._call(request, _FUNCTIONS + "GetFunction", asked)
        return JSONResponse(self._status(answer.function, await self._invocations()))

    async def _deploy(self, request: Request) -> Response:
        return await self._put(request, deployment_of(await _body(request)))

    async def _update(self, request: Request) -> Response:
        deployment = deployment_of(await _body(request))
        # faas-cli updates first, and deploys where it is told that there is nothing to update.
        await self._known(request, deployment.function.name, _FUNCTIONS + "DeployFunction")
        return await self._put(request, deployment)

    async def _put(self, request: Request, deployment: DeployFunctionRequest) -> Response:
        await self._call(request, _FUNCTIONS + "DeployFunction", deployment)
        return _accepted()

    async def _delete(self, request: Request) -> Response:
        reader = Reader(await _body(request))
        name = reader.text("functionName", required=True)
        reader.namespace()
        reader.done()
        await self._call(request, _FUNCTIONS + "DeleteFunction", DeleteFunctionRequest(name=function_name(name)))
        return _accepted()

    async def _scale(self, request: Request) -> Response:
        reader = Reader(await _body(request))
        replicas = reader.number("replicas")
        reader.namespace()
        reader.done()
        name = function_name(request.path_params["name"])
        function = await self._known(request, name, _FUNCTIONS + "ScaleFunction")
        scaling = ScaleFunctionRequest(name=name, min_instances=replicas)
        if replicas > (function.max_instances or limits.DEFAULT_MAX_INSTANCES):
            scaling.max_instances = replicas
        await self._call(request, _FUNCTIONS + "ScaleFunction", scaling)
        return _accepted()

    async def _list_secrets(self, request: Request) -> Response:
        _check_namespace(request)
        listed: list[Json] = []
        page = ListSecretsRequest(page_size=_PAGE_SIZE)
        while True:
            answer = await self._call(request, _SECRETS + "ListSecrets", page)
            listed += [{"name": secret.name, "namespace": NAMESPACE} for secret in answer.secrets]
            if not answer.next_page_token:
                return JSONResponse(listed)
            page.page_token = answer.next_page_token

    async def _create_secret(self, request: Request) -> Response:
        name, given = await _secret(request)
        await self._call(request, _SECRETS + "CreateSecret", CreateSecretRequest(name=name, value=secret_value(given)))
        return _accepted()

    async def _update_secret(self, request: Request) -> Response:
        name, given = await _secret(request)
        await self._call(request, _SECRETS + "UpdateSecret", UpdateSecretRequest(name=name, value=secret_value(given)))
        return _accepted()

    async def _delete_secret(self, request: Request) -> Response:
        name, _ = await _secret(request)
        await self._call(request, _SECRETS + "DeleteSecret", DeleteSecretRequest(name=name))
        return _accepted()

    async def _logs(self, request: Request) -> Response | LogStream:
        try:
            query = LogQuery.of(request.query_params)
        except ApiError as error:
            return PlainTextResponse(f"{error}\n", status_code=HTTPStatus.UNPROCESSABLE_ENTITY)
        identity: Identity = request.state.identity
        admit(identity, _LOGS)
        identity.check_function(query.function)
        await self._catalog.get(query.function)
        return LogStream(query, self._tails, self._serving.calls, identity)

    async def _call(self, request: Request, name: str, message: Message) -> Any:
        """Call a method of the API.

        :raises ApiError: It fails.
        """
        method = self._methods[name.removeprefix("/")]
        with Client(request.scope, request.receive) as client:
            try:
                admit(request.state.identity, name)
                return await self._serving.answer(method, _as_it_is, message, client)
            except Exception as error:
                raise self._serving.failed(error, method=name, host=client.host) from error

    async def _known(self, request: Request, name: str, method: str) -> Function:
        """Return a function with which a method is to be called that may be.

        :raises ApiError: It may not be; NOT_FOUND.
        """
        identity: Identity = request.state.identity
        identity.check_call(method)
        identity.check_function(name)
        return await self._catalog.get(name)

    def _status(self, function: Function, counts: dict[str, int]) -> Json:
        return status_of(
            function,
            replicas=self._presence.instances(function.name),
            served=self._presence.serves(function.name),
            invocations=counts.get(function.name, 0),
        )

    async def _invocations(self) -> dict[str, int]:
        """Return of how many invocations there are records, by function."""
        if time.monotonic() - self._counted_at >= _COUNTS_SECONDS:
            self._counted_at = time.monotonic()
            self._counts = await self._database.read(count_functions)
        return self._counts


def _by_verb(handlers: dict[str, _Handler]) -> Callable[[Request], Awaitable[Response | LogStream]]:
    async def handle(request: Request) -> Response | LogStream:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle


async def _body(request: Request) -> Json:
    """Return the JSON object that a request sends.

    :raises ApiError: INVALID_ARGUMENT.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_BODY:
            raise invalid_request(
                [Violation(field="body", description=f"must have at most {_MAX_BODY} bytes (512 KiB)")]
            )
        parts.append(part)
    return read_object(b"".join(parts), max_parts=_MAX_PARTS)


async def _secret(request: Request) -> tuple[str, Json]:
    given = await _body(request)
    reader = Reader(given)
    name = reader.text("name", required=True)
    reader.namespace()
    reader.done()
    return name, given


async def _info(_request: Request) -> Response:
    version = {"sha": "", "release": __version__, "commit_message": ""}
    provider = {"provider": "homing", "version": version, "orchestration": "homing"}
    return JSONResponse({"provider": provider, "version": version, "arch": platform.machine()})


async def _namespaces(_request: Request) -> Response:
    return JSONResponse([NAMESPACE])


async def _as_it_is(message: Message) -> Message:
    return message


def _check_namespace(request: Request) -> None:
    """Check that a request asks for the namespace there is.

    :raises ApiError: INVALID_ARGUMENT.
    """
    reader = Reader(dict(request.query_params))
    reader.namespace()
    reader.done()


def _accepted() -> Response:
    return Response(status_code=HTTPStatus.ACCEPTED)


def _refusal(error: ApiError) -> Response:
    """Return the answer that tells of an error: of a key in the words that OpenFaaS has for it."""
    headers = error_headers(error)
    text = str(error)
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Basic realm="Restricted"'
        text = "invalid credentials"
    return PlainTextResponse(f"{text}\n", status_code=status_code(error), headers=headers)
