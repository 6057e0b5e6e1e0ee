"""What the HTTP front serves to workers: bodies that are too large for messages, by signed URLs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from homing_core import limits
from homing_server.errors import ApiError
from homing_server.front.http.status import refusal
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import BLOBS, RESULTS, SignedUrls

_BLOB_TYPE: Final = "application/protobuf"


class DataPort:
    """Reads and writes bodies for workers."""

    def __init__(self, blobs: Blobs, urls: SignedUrls) -> None:
        self._blobs = blobs
        self._urls = urls

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add what is served here."""
        router.add_get(BLOBS + "{id}", self._read, allow_head=False)
        router.add_put(RESULTS + "{id}", self._write)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        """Send a blob."""
        self._check(request)
        return web.FileResponse(self._blobs.path(request.match_info["id"]), chunk_size=limits.MAX_PART)

    async def _write(self, request: web.Request) -> web.Response:
        """Store the result of an invocation and answer with a homing.v1.Blob that refers to it."""
        self._check(request)
        if (request.content_length or 0) > limits.MAX_PAYLOAD:
            raise _too_large()
        try:
            blob = await self._blobs.write(_parts(request), invocation_id=request.match_info["id"])
        except ApiError as error:
            return refusal(error)
        return web.Response(body=blob.SerializeToString(), content_type=_BLOB_TYPE)

    def _check(self, request: web.Request) -> None:
        signed = self._urls.allows(
            request.method,
            request.path,
            expires=request.query.get("expires", ""),
            signature=request.query.get("signature", ""),
        )
        if not signed:
            raise web.HTTPForbidden


async def _parts(request: web.Request) -> AsyncIterator[bytes]:
    size = 0
    async for part in request.content.iter_chunked(limits.MAX_PART):
        size += len(part)
        if size > limits.MAX_PAYLOAD:
            raise _too_large()
        yield part


def _too_large() -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(max_size=limits.MAX_PAYLOAD, actual_size=limits.MAX_PAYLOAD + 1)
