"""What all runs of a worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from homing_core.broker import Broker
from homing_core.cancelled_calls import CancelledCalls
from homing_worker.control.gate import Gate
from homing_worker.control.secrets import SecretLink
from homing_worker.control.tombstones import Tombstones
from homing_worker.metrics import Metrics
from homing_worker.reporting.events import EventPublisher
from homing_worker.reporting.logs import LogPublisher
from homing_worker.reporting.progress import ProgressEndpoint
from homing_worker.runtime.answer_stream import AnswerStreams
from homing_worker.runtime.bodies import Bodies


@dataclass(frozen=True, kw_only=True, slots=True)
class RunServices:
    """The parts of a worker that its runs use."""

    worker: str
    """The name of the worker."""
    broker: Broker
    gate: Gate
    tombstones: Tombstones
    cancelled_calls: CancelledCalls
    secrets: SecretLink
    events: EventPublisher
    logs: LogPublisher
    progress: ProgressEndpoint
    bodies: Bodies
    streams: AnswerStreams
    metrics: Metrics
    rng: Random
    """Draws the jitter of backoffs."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    quarantine: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by a dispatch that is poison if its worker is lost once more; see :mod:`homing_worker.execution.poison`."""
