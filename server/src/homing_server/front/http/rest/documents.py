"""What describes the API: an OpenAPI document, and a page that shows it, without scripts and with nothing from afar."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, Final

from starlette.responses import Response

from homing_server.front.http.rest.errors import JSON_TYPE

_DOCUMENT: Final = "openapi.json"
"""Made by scripts/openapi.py."""
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
h2 { margin-top: 3rem; } h3 { margin: 2rem 0 0; }
.verb { display: inline-block; min-width: 4.5em; font-weight: 700; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { border-bottom: 1px solid #8884; padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
nav li { list-style: none; } nav ul { padding: 0; }
"""
_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


class Document:
    """Something to read that is the same for all."""

    def __init__(self, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._media_type = media_type
        self._headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", **(headers or {})}

    def response(self) -> Response:
        """Return the answer that it is."""
        return Response(self.body, media_type=self._media_type, headers=self._headers)

    @cached_property
    def body(self) -> bytes:
        """What it says."""
        raise NotImplementedError


class OpenApi(Document):
    """The OpenAPI document."""

    @cached_property
    def body(self) -> bytes:
        """What it says."""
        return resources.files(__package__).joinpath(_DOCUMENT).read_bytes()


class Page(Document):
    """The page that shows the OpenAPI document."""

    @cached_property
    def body(self) -> bytes:
        """What it says."""
        return page(json.loads(OpenApi(JSON_TYPE).body)).encode()


DOCUMENTS: Final[Mapping[str, Document]] = {
    "/v1/openapi.json": OpenApi(JSON_TYPE),
    "/v1/docs": Page("text/html", {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}),
}
"""By its path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Operation:
    verb: str
    path: str
    described: Mapping[str, Any]

    @property
    def anchor(self) -> str:
        return str(self.described["operationId"])


def page(document: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as a page."""
    operations = [
        _Operation(verb=verb.upper(), path=path, described=described)
        for path, verbs in document["paths"].items()
        for verb, described in verbs.items()
    ]
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{_text(info['title'])}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(info['title'])}</h1>{_paragraphs(info['description'])}",
        "<p>The same for programs: <a href=/v1/openapi.json>openapi.json</a></p><nav>",
    ]
    tags = {
        tag["name"]: [each for each in operations if tag["name"] in each.described["tags"]] for tag in document["tags"]
    }
    for tag, members in tags.items():
        items = "".join(f"<li><a href='#{each.anchor}'>{_title(each)}</a></li>" for each in members)
        parts.append(f"<h4>{_text(tag)}</h4><ul>{items}</ul>")
    parts.append("</nav>")
    for tag in document["tags"]:
        parts.append(f"<h2>{_text(tag['name'])}</h2>{_paragraphs(tag['description'])}")
        parts.extend(_operation(each) for each in tags[tag["name"]])
    parts.append("<h2>Schemas</h2>")
    parts.extend(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    parts.append("</body></html>")
    return "".join(parts)


def _operation(operation: _Operation) -> str:
    described = operation.described
    rows = "".join(
        f"<tr><td><code>{_text(each['name'])}</code><td>{each['in']}<td>{_kind(each['schema'])}"
        f"<td>{_text(each.get('description', ''))}"
        for each in described.get("parameters", ())
    )
    parts = [f"<h3 id='{operation.anchor}'>{_title(operation)}</h3>{_paragraphs(described['description'])}"]
    if rows:
        parts.append(f"<table><tr><th>Parameter<th>In<th>Type<th>Meaning{rows}</table>")
    if "requestBody" in described:
        parts.append(f"<p>Body: {_content(described['requestBody']['content'])}</p>")
    answers = [each for status, each in described["responses"].items() if status == "200"]
    parts.extend(f"<p>Answer: {_content(each['content'])}</p>" for each in answers)
    return "".join(parts)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"<h3 id='{_text(name)}'>{_text(name)}</h3>{_paragraphs(schema.get('description', ''))}"]
    if "properties" in schema:
        rows = "".join(
            f"<tr><td><code>{_text(each)}</code><td>{_kind(kind)}<td>{_text(kind.get('description', ''))}"
            for each, kind in schema["properties"].items()
        )
        parts.append(f"<table>{rows}</table>")
    if "enum" in schema:
        parts.append("<ul>" + "".join(f"<li><code>{_text(str(each))}</code>" for each in schema["enum"]) + "</ul>")
    return "".join(parts)


def _kind(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_kind(schema['additionalProperties'])}"
    shown = schema.get("format") or schema.get("contentEncoding") or schema.get("type") or "any"
    return _text(str(shown))


def _content(content: Mapping[str, Any]) -> str:
    return ", ".join(
        f"<code>{_text(media_type)}</code> {_kind(described.get('schema', {}))}"
        for media_type, described in content.items()
    )


def _title(operation: _Operation) -> str:
    return f"<span class=verb>{operation.verb}</span> <code>{_text(operation.path)}</code>"


def _paragraphs(text: str) -> str:
    return "".join(_paragraph(each) for each in text.split("\n\n") if each)


def _paragraph(text: str) -> str:
    parts: Iterator[str] = iter(_text(text).split("`"))
    # What stands between two of these marks is code.
    return f"<p>{''.join(part if place % 2 == 0 else f'<code>{part}</code>' for place, part in enumerate(parts))}</p>"


def _text(text: str) -> str:
    return html.escape(text)
