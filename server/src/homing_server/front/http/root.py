"""Where every HTTP request comes in: who calls is found out here, before anything is done for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError, Code, ErrorReason, key_missing, shown, unavailable
from homing_server.front.api.calls import Calls
from homing_server.front.http.areas import Area
from homing_server.front.http.authorization import is_basic, shown_key
from homing_server.front.http.host_names import HostNames
from homing_server.front.http.origins import comes_from_elsewhere
from homing_server.front.http.status import refusal

_log = structlog.get_logger(__name__)

_MISDIRECTED: Final = 421
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""What changes nothing; the functions of a gateway are another matter."""


class Root:
    """The ASGI application of the HTTP port."""

    def __init__(
        self,
        areas: Sequence[Area],
        *,
        keys: KeyCache | None,
        calls: Calls,
        refusals: Refusals,
        names: HostNames,
    ) -> None:
        """Put the areas together.

        :param keys: Who knows callers; None lets everybody in.
        :param calls: Bounds the calls that are under way, and ends those of keys that are revoked.
        :param refusals: Tells of those who are not let in.
        :param names: Under which the server may be asked for something.
        """
        self.areas: Final = tuple(areas)
        self._single = {area.path.encode(): area for area in areas if not area.path.endswith("/")}
        # The longest first: of two that a path begins with it belongs to the narrower one.
        self._trees = sorted(
            ((area.path.encode(), area) for area in areas if area.path.endswith("/")), key=lambda tree: -len(tree[0])
        )
        self._keys = keys
        self._calls = calls
        self._refusals = refusals
        self._names = names
        self._draining = False
        self._under_way: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        area = self._area(scope["raw_path"])
        try:
            host, authorization = _asked(scope)
            if not self._names.allow(host):
                why = (
                    f"a server on loopback has the name localhost, or that of HOMING_DATA_URL, and not {shown(host)}\n"
                )
                answer: Response = PlainTextResponse(why, status_code=_MISDIRECTED)
            elif area is not None and area.open:
                await area.app(scope, receive, send)
                return
            else:
                await self._admit(area, authorization, scope, receive, send)
                return
        except ApiError as error:
            self._refusals.note(error, peer=_peer(scope), what=scope["path"])
            answer = (area.refusal if area is not None else refusal)(error)
        except (ClientDisconnect, asyncio.CancelledError):
            # Nobody is there to be told: the client has gone away, or the server stops.
            scope["state"]["connection"].force_close()
            return
        except Exception:  # noqa: BLE001 every failure becomes an answer
            _log.exception("http_request_failed", path=scope["path"])
            failure = ApiError(
                code=Code.INTERNAL, reason=ErrorReason.INTERNAL, message="the server failed; its log says why"
            )
            answer = (area.refusal if area is not None else refusal)(failure)
        try:
            await answer(scope, receive, send)
        except RuntimeError:
            # An answer had begun: that it breaks off is how its client is told.
            scope["state"]["connection"].force_close()

    async def drain(self, grace: float) -> None:
        """Take no more calls and give those under way so many seconds to end. What is open is served on."""
        self._draining = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=grace)
        for task in self._under_way:
            task.cancel()

    def _area(self, path: bytes) -> Area | None:
        for prefix, area in self._trees:
            if path.startswith(prefix):
                return area
        return self._single.get(path)

    async def _admit(self, area: Area | None, authorization: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of somebody who may be known.

        :raises ApiError: They are not let in.
        """
        if self._draining:
            raise unavailable(ErrorReason.SERVER_STOPPING, "the server stops")
        if (
            scope["method"] not in _SAFE
            and self._is_remembered(authorization)
            and comes_from_elsewhere(scope["headers"])
        ):
            raise ApiError(
                code=Code.PERMISSION_DENIED,
                reason=ErrorReason.CROSS_SITE,
                message="a page of another site may not do this",
            )
        identity = self._identify(authorization, anonymous=area is not None and area.anonymous)
        if area is None or not area.counts:
            identity.take()
        if area is None:
            await PlainTextResponse("there is nothing here\n", status_code=404)(scope, receive, send)
            return
        scope["state"]["identity"] = identity
        task = asyncio.current_task()
        assert task is not None, "requests are served in tasks"
        self._under_way.add(task)
        try:
            if area.counts:
                await area.app(scope, receive, send)
            else:
                with self._calls.serving(identity, operates=area.operates) as call, call:
                    await area.app(scope, receive, send)
        finally:
            self._under_way.discard(task)

    def _is_remembered(self, authorization: str) -> bool:
        """Tell whether browsers get in with what they send by themselves, whatever page has them do it."""
        return self._keys is None or is_basic(authorization)

    def _identify(self, authorization: str, *, anonymous: bool) -> Identity:
        if self._keys is None:
            return EVERYBODY
        identity = self._keys.identify(shown_key(authorization))
        if not (identity.known or anonymous):
            raise key_missing()
        return identity


def _asked(scope: Scope) -> tuple[str, str]:
    """Return the headers `Host` and `Authorization` of a request; empty where it has none.

    :raises ApiError: INVALID_ARGUMENT: it is not clear whom it asks, or who asks.
    """
    hosts, authorizations = [], []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"authorization":
            authorizations.append(value)
    # RFC 9112, 3.2: whatever stands between might have taken another one for it.
    if len(hosts) > 1 or (not hosts and scope["http_version"] == "1.1"):
        raise _unclear("Host", "once")
    if len(authorizations) > 1:
        raise _unclear("Authorization", "at most once")
    return (
        hosts[0].decode("latin-1") if hosts else "",
        authorizations[0].decode("latin-1") if authorizations else "",
    )


def _unclear(name: str, how_often: str) -> ApiError:
    message = f"the header {name} must be there {how_often}"
    return ApiError(code=Code.INVALID_ARGUMENT, reason=ErrorReason.INVALID_REQUEST, message=message)


def _peer(scope: Scope) -> str:
    return scope["client"][0] if scope["client"] else ""
