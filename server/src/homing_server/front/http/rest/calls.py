"""Makes calls of requests: reads path, query and body into the request of a method, serves it, writes the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from homing.v1.invocation_service_pb2 import WatchResultsRequest
from homing.v1.payload_service_pb2 import WritePayloadRequest
from homing_core import limits
from homing_core.limits import KIB
from homing_server.errors import Violation, invalid_request, shown
from homing_server.front.api.requests import Readers, max_bytes, max_parts
from homing_server.front.api.serving import Behaviour, Method, Serving
from homing_server.front.http.rest.bodies import message_of, read_object
from homing_server.front.http.rest.client import Client
from homing_server.front.http.rest.errors import JSON_TYPE, http_error
from homing_server.front.http.rest.parameters import add_parameters, add_path
from homing_server.front.http.rest.routes import Form, Route, Values
from homing_server.front.http.rest.streams import (
    BYTES_TYPE,
    EVENTS_TYPE,
    LINES_TYPE,
    Bytes,
    Events,
    FunctionLogEvents,
    Lines,
    LogEvents,
    Stream,
    WatchEvents,
)

LAST_EVENT_ID: Final = "Last-Event-ID"
_ROOM: Final = 2
"""JSON takes so many times as much room as what it stands for: bytes in base64 a third more, and names."""
_SMALL_BYTES: Final = 8 * KIB
"""So much JSON is read, and written, at once: larger takes its turn in a thread."""
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_TYPES: Final = {
    Form.MESSAGE: JSON_TYPE,
    Form.UPLOAD: JSON_TYPE,
    Form.EVENTS: EVENTS_TYPE,
    Form.LINES: LINES_TYPE,
    Form.DOWNLOAD: BYTES_TYPE,
}


class RestMethod:
    """A method of the API where its route is."""

    def __init__(
        self, route: Route, described: MethodDescriptor, behaviour: Behaviour, serving: Serving, readers: Readers
    ) -> None:
        """Prepare to serve.

        :param behaviour: What the service does.
        """
        self.route: Final = route
        self.name: Final = f"/{described.containing_service.full_name}/{described.name}"
        self._method = Method.of(self.name, behaviour, streams_in=described.client_streaming)
        self._input = described.input_type
        self._type = GetMessageClass(described.input_type)
        self._max_bytes = _ROOM * max_bytes(described.full_name)
        self._max_parts = max_parts(described.full_name)
        self._resumes = "resume_token" in described.input_type.fields_by_name
        self._serving = serving
        self._readers = readers

    async def serve(self, scope: Scope, receive: Receive, send: Send, values: Values) -> None:
        """Serve a request, whose caller has been let in.

        :param values: What the path says.
        :raises ApiError: It fails, and nothing has been sent yet.
        :raises ClientDisconnect: The client has gone away, or cannot be told any more.
        """
        with Client(scope, receive) as client:
            check_accepts(client, _TYPES[self.route.form])
            query = scope["query_string"]
            if self.route.form in (Form.MESSAGE, Form.UPLOAD):
                response: Response | None = await self._answer(client, query, values)
            else:
                response = await self._stream(client, query, values, send)
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, client: Client, query: bytes, values: Values) -> Response:
        async def read(client: Client) -> Any:
            if self.route.form is Form.UPLOAD:
                return _upload(client, query)
            return await self._read(client, query, values)

        try:
            message = await self._serving.answer(self._method, read, client, client)
        except Exception as error:
            raise self._serving.failed(error, method=self.name, host=client.host) from error
        headers = {**_HEADERS, **client.answer_headers}
        return Response(await self._render(message), headers=headers, media_type=JSON_TYPE)

    async def _stream(self, client: Client, query: bytes, values: Values, send: Send) -> Response | None:
        async def read(client: Client) -> Message:
            request = await self._read(client, query, values)
            if self._resumes and LAST_EVENT_ID in client.headers:
                # Whoever comes back asks for the same URL again, and for what came since.
                request.resume_token = client.headers[LAST_EVENT_ID]  # type: ignore[attr-defined]
            return request

        out, over = self._out(client, send)
        if over:
            # It is how a browser is told not to come again.
            return Response(status_code=204, headers=_HEADERS)
        try:
            async with out.kept_alive():
                await self._serving.stream(self._method, read, client, client, out)
            await out.finish()
        except Exception as error:  # noqa: BLE001 every error becomes a status
            await out.fail(self._serving.failed(error, method=self.name, host=client.host))
        return None

    def _out(self, client: Client, send: Send) -> tuple[Stream, bool]:
        """Return where the messages of a stream go, and whether all of them went there before.

        :raises ApiError: INVALID_ARGUMENT: it cannot go on where its client says.
        """
        if self.route.form is Form.DOWNLOAD:
            return Bytes(client, send), False
        if self.route.form is Form.LINES:
            return Lines(client, send, self._render), False
        if self._type is WatchResultsRequest:
            return Events(client, send, self._render, WatchEvents()), False
        last_id = client.headers.get(LAST_EVENT_ID, "")
        events = FunctionLogEvents(last_id) if self._resumes else LogEvents(last_id)
        return Events(client, send, self._render, events), events.over

    async def _read(self, client: Client, query: bytes, values: Values) -> Message:
        """Read the request.

        :raises ApiError: INVALID_ARGUMENT.
        """
        _check_plain(client)
        raw = await client.body(self._max_bytes)
        if raw and not self.route.body:
            raise http_error(400, "there must be no body: what it would say are parameters of the query")
        if self.route.body:
            _check_json(client, raw)

        def parse(raw: bytes) -> Message:
            body = read_object(raw, max_parts=self._max_parts)
            fields = body if self.route.body in ("", "*") else {self.route.body: body}
            if self.route.body == "*" and query:
                raise http_error(400, "there must be no query: all that it would say belongs into the body")
            add_parameters(fields, self._input, query)
            add_path(fields, self._input, self.route.variables, values)
            return message_of(fields, self._type(), self._input)

        if len(raw) > _SMALL_BYTES:
            return await self._readers.run(parse, raw)
        return parse(raw)

    async def _render(self, message: Message) -> str:
        if message.ByteSize() > _SMALL_BYTES:
            return await self._readers.run(_json, message)
        return _json(message)


def check_accepts(client: Client, media_type: str) -> None:
    """Check that a client takes what it would be sent.

    :raises ApiError: INVALID_ARGUMENT: 406.
    """
    wanted = client.headers.get("accept", "*/*") or "*/*"
    ranges = {each.partition(";")[0].strip().lower() for each in wanted.split(",")}
    fitting = {media_type, f"{media_type.partition('/')[0]}/*", "*/*"}
    if media_type == LINES_TYPE:
        # Each line is JSON: so it is for a client that says so of all that it sends and takes.
        fitting.add(JSON_TYPE)
    if not fitting & ranges:
        raise http_error(406, f"the answer is {media_type}, which the header Accept does not have")


def _check_json(client: Client, raw: bytes) -> None:
    """Check that a body is said to be JSON.

    :raises ApiError: INVALID_ARGUMENT: 415.
    """
    said = client.headers.get("content-type", "")
    if not (raw or said):
        return
    media_type, _, parameters = said.lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if media_type.strip() != JSON_TYPE or charset not in ("", "charset=utf-8"):
        raise http_error(415, f"the body must be {JSON_TYPE}: say so in the header Content-Type")


def _check_plain(client: Client) -> None:
    """Check that a body is sent as it is.

    :raises ApiError: INVALID_ARGUMENT: 415.
    """
    coding = client.headers.get("content-encoding", "")
    if coding.strip().lower() not in {"", "identity"}:
        raise http_error(415, f"bodies are read as they are sent: no Content-Encoding {shown(coding)}")


async def _upload(client: Client, query: bytes) -> AsyncIterator[WritePayloadRequest]:
    """Return a body as the messages that it would be over gRPC.

    :raises ApiError: INVALID_ARGUMENT: its length is not said.
    """
    if query:
        raise invalid_request([Violation(field="query", description="there are no parameters")])
    _check_plain(client)
    if client.length is None:
        raise http_error(411, "the header Content-Length must say how long the body is")
    yield WritePayloadRequest(size=client.length)
    async for part in client.parts():
        for at in range(0, len(part), limits.MAX_PART):
            yield WritePayloadRequest(data=part[at : at + limits.MAX_PART])


def _json(message: Message) -> str:
    return json.dumps(MessageToDict(message), ensure_ascii=False, separators=(",", ":"))
