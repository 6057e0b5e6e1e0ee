"""Make the OpenAPI document of the REST API from proto/homing/v1, with its comments, and from the table of routes.

``--check`` complains where it is not what would be made, and changes nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from homing_server.front.http.rest.calls import LAST_EVENT_ID
from homing_server.front.http.rest.client import INVOCATION_ID, TIMEOUT
from homing_server.front.http.rest.routes import ROUTES, Form, Route
from homing_server.front.http.rest.streams import BYTES_TYPE, EVENTS_TYPE, LINES_TYPE

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "server" / "src" / "homing_server" / "front" / "http" / "rest" / "openapi.json"
PACKAGE = "homing.v1"

DESCRIPTION = """\
Function containers, invoked now or later. What this API does gRPC does too, as `homing.v1`: its messages are here as \
JSON by the rules of protobuf, so bytes are base64, whole numbers of 64 bits are texts, times are RFC 3339, and \
durations are seconds with an `s`. A field that has its default is left out.

What a path does not name and a body does not have comes as parameters of the query, with dots between the names of \
fields, as `filter.functions=resize`; a list is said once for each item, and an entry of a map as \
`filter.labels[team]=images`.

Every error is a google.rpc.Status: `{"error": {"code": 404, "status": "NOT_FOUND", "message": …, "details": […]}}`. \
Its details have a google.rpc.ErrorInfo with a reason, and where it applies the fields of the request that are \
wrong, and after which time to try again.

Streams of server-sent events go on where they broke off, after the event whose `id` is sent back as `Last-Event-ID`: \
a browser's `EventSource` does so by itself. A stream that fails ends with an event `error`, and a stream of lines \
with a line that has the error.

A key is sent as `Authorization: Bearer KEY`, or as the password of any user.
"""
ERRORS: Mapping[int, str] = {
    400: "The request breaks a rule, or what it is about is in a state that does not allow it.",
    401: "There is no key, or none that is in force.",
    403: "The key does not allow it.",
    404: "There is no such resource.",
    405: "The path does not take this verb.",
    406: "The client does not take the media type of the answer.",
    408: "The request does not come.",
    409: "It exists already, or was changed meanwhile.",
    411: "The length of the body is not said.",
    413: "The body is too large.",
    415: "The body is not of a media type that is read here.",
    421: "The server has another name.",
    429: "There are too many requests.",
    500: "The server failed.",
    503: "The server cannot do it now.",
    504: "The time that the client gave it has passed.",
    507: "There is no room to store it.",
}
ALWAYS = (400, 401, 403, 404, 405, 406, 408, 409, 421, 429, 500, 503, 504, 507)
WITH_BODY = (411, 413, 415)

WELL_KNOWN: Mapping[str, Mapping[str, Any]] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$"},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Names of fields with commas between them."},
    ".google.rpc.Status": {"$ref": "#/components/schemas/Status"},
}
Type = FieldDescriptorProto
SCALARS: Mapping[int, Mapping[str, Any]] = {
    Type.TYPE_STRING: {"type": "string"},
    Type.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    Type.TYPE_BOOL: {"type": "boolean"},
    Type.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Type.TYPE_INT32: {"type": "integer", "format": "int32"},
    Type.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    Type.TYPE_INT64: {"type": "string", "format": "int64", "pattern": r"^-?\d{1,19}$"},
    Type.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": r"^\d{1,20}$"},
}


class Api:
    """What proto/homing/v1 says."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.services: list[ServiceDescriptorProto] = []
        self.comments: dict[str, str] = {}
        """By the full name of what they are about."""
        for file in files.file:
            if file.package == PACKAGE:
                self._add(file)

    def comment(self, *names: str) -> str:
        """Return what is said of something with this full name, whose last part may be apart."""
        return self.comments.get(".".join(names), "")

    def _add(self, file: FileDescriptorProto) -> None:
        for location in file.source_code_info.location:
            if location.leading_comments:
                name = full_name(file, location.path)
                self.comments[name] = paragraphs(location.leading_comments)
        self.services.extend(file.service)
        self.enums |= {f".{PACKAGE}.{each.name}": each for each in file.enum_type}
        for message in file.message_type:
            self._add_message(f".{PACKAGE}", message)

    def _add_message(self, scope: str, message: DescriptorProto) -> None:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        self.enums |= {f"{name}.{each.name}": each for each in message.enum_type}
        for inner in message.nested_type:
            self._add_message(name, inner)


def full_name(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """Return the full name of what is at a path in the description of a file."""
    of: Any = file
    names = [f".{PACKAGE}"]
    for step in path:
        of = getattr(of, of.DESCRIPTOR.fields_by_number[step].name) if hasattr(of, "DESCRIPTOR") else of[step]
        if hasattr(of, "DESCRIPTOR"):
            names.append(getattr(of, "name", ""))
    return ".".join(names)


def paragraphs(comment: str) -> str:
    """Return a comment as text: lines that belong together are one."""
    parts = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(" ".join(part.split()) for part in parts)


def reference(name: str) -> str:
    """Return the name under which a message or enum is among the schemas."""
    return name.removeprefix(f".{PACKAGE}.")


def schema(api: Api, field: FieldDescriptorProto) -> dict[str, Any]:
    """Return the schema of a field, without what is said of it."""
    entry = api.messages.get(field.type_name)
    if entry is not None and entry.options.map_entry:
        return {"type": "object", "additionalProperties": single(entry.field[1])}
    return {"type": "array", "items": single(field)} if field.label == Type.LABEL_REPEATED else single(field)


def single(field: FieldDescriptorProto) -> dict[str, Any]:
    """Return the schema of one value of a field."""
    if field.type_name in WELL_KNOWN:
        return dict(WELL_KNOWN[field.type_name])
    if field.type in (Type.TYPE_MESSAGE, Type.TYPE_ENUM):
        return {"$ref": f"#/components/schemas/{reference(field.type_name)}"}
    return dict(SCALARS[field.type])


def message_schema(api: Api, name: str) -> dict[str, Any]:
    """Return the schema of a message."""
    fields = api.messages[name].field
    return {
        "type": "object",
        "description": api.comment(name),
        "properties": {
            field.json_name: {**schema(api, field), "description": api.comment(name, field.name)} for field in fields
        },
    }


def enum_schema(api: Api, name: str) -> dict[str, Any]:
    """Return the schema of an enum."""
    values = [value.name for value in api.enums[name].value]
    words = [api.comment(name), *(f"`{value}`: {api.comment(name, value)}" for value in values)]
    return {"type": "string", "description": "\n\n".join(words), "enum": values}


def operation(api: Api, service: ServiceDescriptorProto, method: MethodDescriptorProto, route: Route) -> dict[str, Any]:
    """Return what is said of a method."""
    words = api.comment(f".{PACKAGE}", service.name, method.name)
    found: dict[str, Any] = {
        "operationId": method.name,
        "tags": [service.name.removesuffix("Service")],
        "summary": words.partition(". ")[0].rstrip("."),
        "description": words,
        "parameters": [*path_parameters(api, method.input_type, route), *header_parameters(method, route)],
    }
    if route.form is Form.UPLOAD:
        found["requestBody"] = {"required": True, "content": {BYTES_TYPE: {}}}
    elif route.body:
        body = method.input_type if route.body == "*" else field_of(api, method.input_type, route.body).type_name
        # Where the path says all that is needed there need be no body.
        found["requestBody"] = {"content": {"application/json": {"schema": ref(body)}}}
    if route.body != "*" and route.form is not Form.UPLOAD:
        found["parameters"] += query_parameters(api, method.input_type, route)
    found["responses"] = responses(api, method, route)
    return found


def ref(name: str) -> dict[str, Any]:
    """Return a reference to the schema of a message."""
    return {"$ref": f"#/components/schemas/{reference(name)}"}


def field_of(api: Api, message: str, name: str) -> FieldDescriptorProto:
    """Return a field of a message."""
    return next(field for field in api.messages[message].field if field.name == name)


def path_parameters(api: Api, message: str, route: Route) -> Iterator[dict[str, Any]]:
    """Yield what the path names of a request."""
    for name in route.variables:
        inner = message
        *outer, last = name.split(".")
        for each in outer:
            inner = field_of(api, inner, each).type_name
        yield {
            "name": last,
            "in": "path",
            "required": True,
            "description": api.comment(inner, last),
            "schema": {"type": "string", "minLength": 1},
        }


def path_of(route: Route) -> str:
    """Return a path with the last names of fields alone: clients make names of variables of them."""
    return re.sub(r"\{[a-z_.]*\.", "{", route.path)


def query_parameters(api: Api, message: str, route: Route, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield what the query may say of a request."""
    for field in api.messages[message].field:
        proto_name = f"{prefix}{field.name}"
        if proto_name in route.variables or proto_name == route.body:
            continue
        name = f"{prefix}{field.json_name}"
        inner = api.messages.get(field.type_name)
        if inner is not None and not inner.options.map_entry:
            yield from query_parameters(api, field.type_name, route, f"{name}.")
            continue
        parameter: dict[str, Any] = {"name": name, "in": "query", "schema": schema(api, field)}
        if inner is not None:
            parameter |= {"style": "deepObject", "explode": True}
        yield {**parameter, "description": api.comment(message, field.name)}


def header_parameters(method: MethodDescriptorProto, route: Route) -> Iterator[dict[str, Any]]:
    """Yield what headers may say."""
    if route.form is Form.EVENTS:
        words = "The `id` of the last event that came: the stream goes on after it."
        yield {"name": LAST_EVENT_ID, "in": "header", "schema": {"type": "string"}, "description": words}
    if method.name in ("Invoke", "InvokeStream", "WaitInvocation"):
        words = "For how many seconds the client waits, as the deadline of a call over gRPC."
        limits = {"type": "number", "exclusiveMinimum": 0}
        yield {"name": TIMEOUT, "in": "header", "schema": limits, "description": words}


def responses(api: Api, method: MethodDescriptorProto, route: Route) -> dict[str, Any]:
    """Return all answers of a method."""
    response = ref(method.output_type)
    words = api.comment(method.output_type)
    contents: dict[Form, dict[str, Any]] = {
        Form.MESSAGE: {"application/json": {"schema": response}},
        Form.UPLOAD: {"application/json": {"schema": response}},
        # What one event has, as OpenAPI 3.2 describes it; 3.1 has no way to say that there are several.
        Form.EVENTS: {EVENTS_TYPE: {"schema": event(response)}},
        Form.LINES: {LINES_TYPE: {"schema": {"type": "string", "description": f"Lines of {method.output_type[1:]}"}}},
        Form.DOWNLOAD: {BYTES_TYPE: {}},
    }
    found: dict[str, Any] = {"200": {"description": words or "It is done.", "content": contents[route.form]}}
    if method.name in ("Invoke", "InvokeStream"):
        header = {"description": "The id of the invocation.", "schema": {"type": "string"}}
        found["200"]["headers"] = {INVOCATION_ID: header}
    if method.name in ("TailLogs", "TailFunctionLogs"):
        found["204"] = {"description": "All lines came before the event of which the client has sent the id."}
    takes_body = route.body or route.form is Form.UPLOAD
    for status in sorted((*ALWAYS, *(WITH_BODY if takes_body else ()))):
        found[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return found


def event(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a server-sent event."""
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": f"What `{LAST_EVENT_ID}` says to go on after it."},
            "event": {"type": "string", "description": "Its kind."},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        },
    }


def error_response(status: int) -> dict[str, Any]:
    """Return an answer that tells of an error."""
    headers: dict[str, Any] = {}
    if status in (429, 503):
        headers["Retry-After"] = {"description": "After how many seconds to try again.", "schema": {"type": "string"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"description": "How to send a key.", "schema": {"type": "string"}}
    if status == 405:
        headers["Allow"] = {"description": "The verbs that it takes.", "schema": {"type": "string"}}
    content: Any = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    if status == 421:
        content = {"text/plain": {"schema": {"type": "string"}}}
    return {"description": ERRORS[status], **({"headers": headers} if headers else {}), "content": content}


def error_schemas() -> dict[str, Any]:
    """Return the schemas of errors."""
    detail = {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]}
    details = {"type": "array", "items": detail, "description": "A google.rpc.ErrorInfo, and others."}
    message = {"type": "string", "description": "What is wrong, for people."}
    return {
        "Error": {
            "type": "object",
            "description": "An error, as AIP-193 has it.",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message", "status", "details"],
                    "properties": {
                        "code": {"type": "integer", "description": "The status of HTTP."},
                        "message": message,
                        "status": {"type": "string", "description": "The name of gRPC's status."},
                        "details": details,
                    },
                }
            },
        },
        "Status": {
            "type": "object",
            "description": "A google.rpc.Status.",
            "properties": {
                "code": {"type": "integer", "description": "The number of gRPC's status."},
                "message": message,
                "details": details,
            },
        },
    }


def used(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas that paths refer to, and those that these refer to."""
    found: dict[str, Any] = {}
    todo: Sequence[Any] = [paths, {"$ref": "#/components/schemas/Error"}]
    while todo:
        names = set(re.findall(r'"#/components/schemas/([\w.]+)"', json.dumps(todo))) - found.keys()
        found |= {name: schemas[name] for name in names}
        todo = [schemas[name] for name in names]
    return dict(sorted(found.items()))


def document(api: Api) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for service in api.services:
        for method in service.method:
            route = ROUTES[f"/{PACKAGE}.{service.name}/{method.name}"]
            paths.setdefault(path_of(route), {})[route.verb.lower()] = operation(api, service, method, route)
    schemas = {
        **error_schemas(),
        **{reference(name): message_schema(api, name) for name in api.messages},
        **{reference(name): enum_schema(api, name) for name in api.enums},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "homing", "version": "v1", "description": DESCRIPTION.strip()},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}, {}],
        "tags": [
            {"name": each.name.removesuffix("Service"), "description": api.comment(f".{PACKAGE}", each.name)}
            for each in api.services
        ],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": used(paths, schemas),
            "responses": {str(status): error_response(status) for status in ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "Any user, and a key as the password."},
            },
        },
    }


def main() -> int:
    """Write the file, or tell whether it is not as it would be made."""
    built = subprocess.run(
        [
            ROOT / ".venv" / "bin" / "buf",
            "build",
            "proto",
            "--path",
            "proto/homing/v1",
            "--as-file-descriptor-set",
            "-o-",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    text = json.dumps(document(Api(FileDescriptorSet.FromString(built.stdout))), indent=1, ensure_ascii=False) + "\n"
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in sys.argv:
        print(f"{DOCUMENT.relative_to(ROOT)} is not what proto/homing/v1 says: make gen renews it")
        return 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
