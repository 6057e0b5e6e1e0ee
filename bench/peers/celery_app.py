"""Celery, set up to lose nothing that it accepted: confirmed publishing, late acknowledgement, durable messages."""

from __future__ import annotations

import http.client
import os
import threading
from urllib.parse import urlsplit

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=64,
    task_acks_late=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_serializer="json",
    worker_prefetch_multiplier=4,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
)

_host = urlsplit(os.environ["BENCH_URL"]).netloc
_local = threading.local()


@app.task
def call(payload: str) -> None:
    """Call the function, on a connection that is kept."""
    connection: http.client.HTTPConnection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = http.client.HTTPConnection(_host)
    connection.request("POST", "/", payload, {"Content-Type": "text/plain"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}")
