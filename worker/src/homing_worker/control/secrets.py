"""What is sealed to this worker alone: the secrets of functions, and the keys that their deliveries are signed with.

It asks servers for them with a public key that it made at its start, and keeps in memory what they answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from google.protobuf.message import DecodeError

from homing_core.sealing import SealError, SealKey
from homing_core.wire.v1 import FunctionSecrets, Sealed

_log = structlog.get_logger(__name__)

_ANSWER_TIMEOUT: Final = 10.0
"""Seconds."""


class SecretsUnavailableError(Exception):
    """No server has answered in time."""


class SecretLink:
    """Knows the secrets and signing keys of functions, and asks for those that it does not know, or not as new."""

    def __init__(self, *, timeout: float = _ANSWER_TIMEOUT) -> None:
        """Make the key pair.

        :param timeout: Seconds that an answer may take.
        """
        self._key = SealKey()
        self._timeout = timeout
        self._known: dict[str, FunctionSecrets] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._hook: Callable[[], None] | None = None

    @property
    def seal_key(self) -> bytes:
        """The public key that servers seal secrets to this worker with."""
        return self._key.public

    @property
    def wanted(self) -> Sequence[str]:
        """The functions whose secrets or signing keys are waited for."""
        return sorted(self._waiting)

    def on_wanted(self, hook: Callable[[], None]) -> None:
        """Call a hook when one more answer is waited for."""
        self._hook = hook

    def take(self, sealed: Sealed) -> None:
        """Take what a server sealed to this worker."""
        function = sealed.function
        try:
            answer = FunctionSecrets.FromString(self._key.open(sealed.box, function))
        except (SealError, DecodeError) as error:
            _log.error("secrets_unreadable", function=function, error=type(error).__name__)
            return
        known = self._known.get(function)
        if known is not None and _version(answer) < _version(known):
            return  # of two servers' answers the older one came later
        self._known[function] = answer
        for event in self._waiting.get(function, ()):
            event.set()

    def forget(self, function: str) -> None:
        """Forget what is known of a function that is gone."""
        self._known.pop(function, None)

    async def secrets(self, function: str, names: Collection[str], version: int) -> Mapping[str, bytes]:
        """Return the values of these secrets of a function.

        :param version: The version that they have at least, as the function was announced.
        :raises SecretsUnavailableError: No server has sent them in time.
        """
        if not names:
            return {}

        def are_new(known: FunctionSecrets) -> bool:
            return known.secrets_version >= version and all(name in known.secrets for name in names)

        known = await self._get(function, are_new)
        return {name: known.secrets[name] for name in names}

    async def signing_keys(self, function: str, version: int) -> Sequence[bytes]:
        """Return the keys that the deliveries of a function are signed with, the newest first; one or two.

        :param version: The version that they have at least.
        :raises SecretsUnavailableError: No server has sent them in time.
        """
        known = await self._get(function, lambda known: known.signing_version >= version)
        return tuple(known.signing_keys)

    async def _get(self, function: str, is_new: Callable[[FunctionSecrets], bool]) -> FunctionSecrets:
        """Return what is known of a function, once it is new enough."""
        known = self._known.get(function)
        if known is not None and is_new(known):
            return known
        answered = asyncio.Event()
        self._waiting.setdefault(function, set()).add(answered)
        try:
            async with asyncio.timeout(self._timeout):
                if self._hook is not None:
                    self._hook()
                while True:
                    await answered.wait()
                    answered.clear()
                    known = self._known.get(function)
                    if known is not None and is_new(known):
                        return known
        except TimeoutError:
            raise SecretsUnavailableError(f"no server has sent them within {self._timeout:g} s") from None
        finally:
            self._waiting[function].discard(answered)
            if not self._waiting[function]:
                del self._waiting[function]


def _version(known: FunctionSecrets) -> tuple[int, int]:
    return known.signing_version, known.secrets_version
