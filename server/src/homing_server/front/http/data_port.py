"""What the HTTP port serves to workers, by signed URLs: large bodies, and answers that are passed on as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from homing_core import limits
from homing_server.errors import ApiError
from homing_server.front.http.areas import Area, routed
from homing_server.front.http.status import refusal
from homing_server.invocations.answer_stream import BadStreamError, NobodyWaitsError, ReaderGoneError
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import BLOBS, RESULTS, STREAMS, SignedUrls

_BLOB_TYPE = "application/protobuf"


class _Blob(FileResponse):
    chunk_size = limits.MAX_PART


class DataPort:
    """Reads and writes bodies for workers."""

    def __init__(
        self, blobs: Blobs, urls: SignedUrls, *, receive: Callable[[str, AsyncIterable[bytes]], Awaitable[None]]
    ) -> None:
        """Prepare to serve.

        :param receive: Passes on what a worker streams of the answer of an invocation, given by its id.
        """
        self._blobs = blobs
        self._receive = receive
        self._urls = urls

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is served here."""
        read = Route(BLOBS + "{id}", self._read, methods=["GET"])
        write = Route(RESULTS + "{id}", self._write, methods=["PUT"])
        stream = Route(STREAMS + "{id}", self._stream, methods=["POST"])
        return (
            Area(path=BLOBS, app=routed([read]), open=True),
            Area(path=RESULTS, app=routed([write]), open=True),
            Area(path=STREAMS, app=routed([stream]), open=True),
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

    async def _stream(self, request: Request) -> Response:
        """Pass an answer on as it comes, to the caller who waits at this server."""
        self._check(request)
        # Nothing may come of it for as long as the function says nothing.
        request.state.connection.patient = True
        try:
            await self._receive(request.path_params["id"], request.stream())
        except NobodyWaitsError:
            raise HTTPException(404) from None
        except ReaderGoneError:
            raise HTTPException(410, headers={"Connection": "close"}) from None
        except BadStreamError:
            raise HTTPException(400, headers={"Connection": "close"}) from None
        return Response(status_code=204)

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
