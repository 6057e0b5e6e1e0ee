"""Envelopes that are too large for rows and messages: what a function gets of an outcome has the whole of the answer.

They are stored as every other large body, before the transaction that invokes the function. One that is not referred to
after all is removed as an upload that nobody used.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final

import structlog

from homing.v1.payload_pb2 import Payload
from homing_core.envelope import envelope_around, envelope_body
from homing_core.wire.v1 import DeliveryMessage
from homing_server.errors import ApiError
from homing_server.payloads.blobs import Blobs
from homing_server.store.function_deliveries import ENVELOPE_TYPE

_log = structlog.get_logger(__name__)

_PART_BYTES: Final = 3 * 256 * 1024
"""So many bytes of an answer are encoded at a time: whole groups of base64, so that its parts make one text."""


class LargeEnvelopes:
    """Stores envelopes, and remembers them until their functions are invoked."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._stored: dict[str, Payload] = {}

    @property
    def stored(self) -> Mapping[str, Payload]:
        """By the id of the delivery, what refers to its envelope."""
        return self._stored

    async def store(self, messages: Iterable[DeliveryMessage]) -> bool:
        """Store the envelopes of deliveries; return whether that could be done of all of them now."""
        for message in messages:
            payload = Payload(content_type=ENVELOPE_TYPE)
            try:
                if await self._is_gone(message.result.payload):
                    # The envelope says that it is cut: to nothing.
                    payload.data = envelope_body(message, wrapped=False)
                else:
                    payload.blob.CopyFrom(await self._blobs.write(self._parts(message)))
            except ApiError as error:
                _log.warning("envelope_not_stored", delivery_id=message.delivery_id, error=str(error))
                return False
            self._stored[message.delivery_id] = payload
        return True

    async def _is_gone(self, answer: Payload) -> bool:
        if not answer.HasField("blob"):
            return False
        gone = not await asyncio.to_thread(self._blobs.path(answer.blob.id).exists)
        if gone:
            _log.warning("envelope_body_unreadable", blob=answer.blob.id)
        return gone

    def forget(self, delivery_ids: Iterable[str]) -> None:
        """Forget the envelopes of deliveries that were carried out."""
        for delivery_id in delivery_ids:
            self._stored.pop(delivery_id, None)

    async def _parts(self, message: DeliveryMessage) -> AsyncGenerator[bytes, None]:
        answer = message.result.payload
        if not answer.HasField("blob"):
            yield envelope_body(message, wrapped=False)
            return
        before, after = envelope_around(message)
        yield before
        async with contextlib.aclosing(self._blobs.parts(answer.blob.id, _PART_BYTES)) as parts:
            async for part in parts:
                yield base64.b64encode(part)
        yield after
