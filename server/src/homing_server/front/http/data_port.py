"""What the HTTP port serves to workers: bodies that are too large for messages, by signed URLs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from homing_core import limits
from homing_server.errors import ApiError
from homing_server.front.http.areas import Area, routed
from homing_server.front.http.status import refusal
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import BLOBS, RESULTS, SignedUrls

_BLOB_TYPE = "application/protobuf"


class _Blob(FileResponse):
    chunk_size = limits.MAX_PART


class DataPort:
    """Reads and writes bodies for workers."""

    def __init__(self, blobs: Blobs, urls: SignedUrls) -> None:
        self._blobs = blobs
        self._urls = urls

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is served here."""
        read = Route(BLOBS + "{id}", self._read, methods=["GET"])
        write = Route(RESULTS + "{id}", self._write, methods=["PUT"])
        return (
            Area(path=BLOBS, app=routed([read]), open=True),
            Area(path=RESULTS, app=routed([write]), open=True),
        )

    async def _read(self, request: Request) -> Response:
        """Send a blob."""
        self._check(request)
        path = self._blobs.path(request.path_params["id"])
        if not await asyncio.to_thread(path.is_file):
            raise HTTPException(404)
        return _Blob(path, media_type="application/octet-stream")

    async def _write(self, request: Request) -> Response:
        """Store the result of an invocation and answer with a homing.v1.Blob that refers to it."""
        self._check(request)
        if int(request.headers.get("Content-Length", 0)) > limits.MAX_PAYLOAD:
            raise _too_large()
        try:
            blob = await self._blobs.write(_parts(request), invocation_id=request.path_params["id"])
        except ApiError as error:
            return refusal(error)
        return Response(blob.SerializeToString(), media_type=_BLOB_TYPE)

    def _check(self, request: Request) -> None:
        signed = self._urls.allows(
            request.method,
            request.url.path,
            expires=request.query_params.get("expires", ""),
            signature=request.query_params.get("signature", ""),
        )
        if not signed:
            raise HTTPException(403)


async def _parts(request: Request) -> AsyncIterator[bytes]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limits.MAX_PAYLOAD:
            raise _too_large()
        yield part


def _too_large() -> HTTPException:
    return HTTPException(413, f"a body must have at most {limits.MAX_PAYLOAD} bytes")
