"""Puts the services, health and reflection on a gRPC server."""

from __future__ import annotations

import resource
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from homing_core.listening import listening, probe
from homing_core.tls import TlsFiles
from homing_server.auth.key_cache import KeyCache
from homing_server.front.api.requests import MAX_MESSAGE, Readers
from homing_server.front.api.services import SERVICES, Services
from homing_server.front.api.serving import Serving
from homing_server.front.grpc.authentication import AuthenticationInterceptor
from homing_server.front.grpc.reflection import add_reflection
from homing_server.front.grpc.status import ErrorInterceptor

_log = structlog.get_logger(__name__)

_NAMES = tuple(service.full_name for service in SERVICES)

_MOST_CONNECTIONS = 10_000
_MOST_STREAMS = 64
"""So many calls at the most are under way over one connection; clients let the others wait.

gRPC serves calls in the order in which they came, whoever makes them. What one connection has sent takes some tenths of
a second at the most, what ten have about one; others wait for so long."""
_MOST_PENDING = 20_000
_METADATA_BYTES = 16 * 1024
_IDENTITY, _GZIP = 1, 4
"""As bits for the ways to compress."""
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # What is compressed is unpacked by what reads requests, within bounds: gRPC itself knows none for what comes out.
    ("grpc.per_message_decompression", 0),
    ("grpc.compression_enabled_algorithms_bitset", _IDENTITY | _GZIP),
    ("grpc.max_send_message_length", -1),
    # Clients may ping every 10 s; the library's default of 5 min ends the connections of those that do.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 2),
    # A client that is gone without a word is noticed within 40 s, and what it waited for is stopped.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # a minute by itself, whatever the former says
    ("grpc.http2.max_pings_without_data", 0),
    # Connections end now and then, so that clients spread over servers that came later. Calls under way may go on for
    # an hour: the end of its connection would stop a synchronous invocation.
    ("grpc.max_connection_age_ms", 30 * 60 * 1000),
    ("grpc.max_connection_age_grace_ms", 60 * 60 * 1000),
    # Two servers on one port would each get half of the calls without anybody having asked for it.
    ("grpc.so_reuseport", 0),
    # Large bodies wait at their senders and not here: a window that grows by itself takes in the whole of them.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
)


_COMPRESSION = (("grpc.default_compression_level", 2),)
"""A level and not an algorithm, which would be used for clients too that did not say that they know it."""


def _bounds() -> tuple[tuple[str, int], ...]:
    """Return how much may come in at a time, as the files allow that this process may have open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        # Half of the files are for everything else: health, the store, the broker, bodies.
        ("grpc.max_allowed_incoming_connections", min(_MOST_CONNECTIONS, files // 2)),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 5 * 60 * 1000),
        ("grpc.max_concurrent_streams", _MOST_STREAMS),
        # It would count calls that have ended but are not cleared away yet, and refuse others in place of those.
        ("grpc.http.overload_protection", 0),
        # By itself gRPC cancels calls where thousands come at a time. They get a turn here, or are told when to come.
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        # Between these two it would refuse at random.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    )


class GrpcFront:
    """A gRPC server with all services of the API."""

    def __init__(
        self,
        listen: str,
        services: Services,
        *,
        tls: TlsFiles | None,
        compress: bool,
        keys: KeyCache | None,
        serving: Serving,
        readers: Readers,
    ) -> None:
        """Put the services together.

        :param tls: The certificate to show, and those of clients to trust; None to serve without TLS.
        :param compress: Whether responses go compressed to clients that accept it.
        :param keys: Who knows callers; None lets everybody in.
        :param serving: Serves calls.
        :param readers: Read requests.
        :raises TlsError: A file cannot be used.
        """
        self._listen = listen
        self._credentials = None if tls is None else _credentials(tls)
        self._calls = serving.calls
        self._server = grpc.aio.server(
            interceptors=[
                AuthenticationInterceptor(keys, serving.refusals),
                ErrorInterceptor(serving, readers),
            ],
            options=(*OPTIONS, *_bounds(), *(_COMPRESSION if compress else ())),
        )
        self._health = health.aio.HealthServicer()
        self._serving: bool | None = None
        self._server.add_generic_rpc_handlers([_handlers(*each) for each in services])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection((*_NAMES, health.SERVICE_NAME), self._server)

    async def start(self) -> str:
        """Serve; return the address.

        :raises ListenError: The address cannot be listened on.
        """
        with listening("grpc_listen", self._listen):
            probe(self._listen)
            port = (
                self._server.add_insecure_port(self._listen)
                if self._credentials is None
                else self._server.add_secure_port(self._listen, self._credentials)
            )
        await self._server.start()
        return f"{self._listen.rpartition(':')[0]}:{port}"

    async def set_serving(self, serving: bool) -> None:  # noqa: FBT001 it is the one thing this sets
        """Tell the callers of the health service whether calls are served."""
        if serving is not self._serving:
            self._serving = serving
            status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in ("", *_NAMES):
                await self._health.set(name, status)
            _log.info("health_changed", serving=serving)

    async def stop(self, grace: float) -> None:
        """Take no more calls and give those under way so many seconds to end."""
        await self._health.enter_graceful_shutdown()
        self._calls.stop()
        await self._server.stop(grace)


def _handlers(service: ServiceDescriptor, behaviours: object) -> grpc.GenericRpcHandler:
    """Return the handlers of a service, which get requests as bytes."""
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {method.name: _handler(method, getattr(behaviours, method.name)) for method in service.methods},
    )


def _handler(method: MethodDescriptor, behaviour: Any) -> grpc.RpcMethodHandler[Any, Any]:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    return make(behaviour, response_serializer=GetMessageClass(method.output_type).SerializeToString)


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return what gRPC needs for TLS.

    :raises TlsError: A file cannot be used. gRPC itself would not say which, or why.
    """
    tls.server_context()
    assert tls.key is not None and tls.cert is not None, "they have just been read"  # noqa: PT018
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.cert.read_bytes())],
        root_certificates=None if tls.ca is None else tls.ca.read_bytes(),
        require_client_auth=tls.ca is not None,
    )
