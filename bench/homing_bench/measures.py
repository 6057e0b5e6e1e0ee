"""What is measured, and of how many operations."""

from __future__ import annotations

from dataclasses import dataclass

ACCEPT = "async accepts, one a call, 64 callers"
ACCEPT_HTTP = "async accepts over HTTP, 64 callers"
ACCEPT_BATCH = "async accepts, batches of 100"
EXECUTE = "executions of a backlog, recorded"
SYNC = "sync calls, 1 caller, p50 / p99"
SYNC_MANY = "sync calls, 32 callers, p50 / p99"
SYNC_HTTP = "sync calls over HTTP, 1 caller, p50 / p99"
SYNC_MANY_HTTP = "sync calls over HTTP, 32 callers, p50 / p99"
START = "accept to start, idle, p50 / p99"
START_LOADED = "accept to start, {rate} /s, p50 / p99"
CALLBACKS = "end to end with callbacks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How many operations each measure takes."""

    accept: int
    accept_batches: int
    sync: int
    sync_many: int
    start: int
    start_rate: int
    start_loaded: int
    callbacks: int
    celery: int
    taskiq: int


FULL = Sizes(
    accept=6000,
    accept_batches=120,
    sync=600,
    sync_many=4000,
    start=200,
    start_rate=200,
    start_loaded=1000,
    callbacks=3000,
    celery=4000,
    taskiq=10000,
)
QUICK = Sizes(
    accept=1500,
    accept_batches=20,
    sync=200,
    sync_many=800,
    start=50,
    start_rate=200,
    start_loaded=200,
    callbacks=500,
    celery=800,
    taskiq=2000,
)
