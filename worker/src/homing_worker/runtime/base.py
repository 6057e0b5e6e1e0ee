"""What the worker asks of whatever runs functions.

A runtime starts instances of functions; an instance takes calls. Both keep their promises whatever a function does:
a call reads a bounded part of an answer, ends soon after it is cancelled, and never blocks the event loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from homing.v1.function_pb2 import Function
from homing_core.reasons import FailureReason
from homing_core.retry import NO_ADVICE, RetryAdvice
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.answer_stream import AnswerStream
from homing_worker.runtime.headers import Headers
from homing_worker.runtime.spool import Spool, Spools

Body = bytes | Spool
"""A body in memory, or in a file where it is too large for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A call of a function."""

    method: str
    target: str
    """The path, with the query where there is one."""
    headers: Headers
    body: Body
    spools: Spools
    """Where a large answer is kept; its caller closes them."""
    stream: AnswerStream | None = None
    """Where an answer goes as it comes; None where it is wanted whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a function answered."""

    status_code: int
    headers: Headers
    """Names in lower case; bounded in number and size."""
    content_type: str
    body: Body
    """Empty where it was passed on as it came."""
    advice: RetryAdvice = NO_ADVICE
    """What it says about another attempt, wherever among its headers."""
    failure: tuple[FailureReason, str] | None = None
    """Why the call failed, where its status code does not say it well."""


class StartFailedError(Exception):
    """An instance could not be started."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CallFailedError(Exception):
    """A call brought no answer, or none that can be kept."""

    def __init__(
        self,
        reason: FailureReason,
        message: str,
        *,
        status_code: int = 0,
        suspect: bool = False,
        permanent: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.status_code = status_code
        """The status of the answer that cannot be kept; 0 where there was none."""
        self.suspect = suspect
        """Whether the instance may be gone."""
        self.permanent = permanent
        """Whether another attempt never helps."""


class Instance(ABC):
    """A running instance of a function."""

    name: str
    revision: int
    """The revision of the function that it runs."""
    image_id: str = ""
    """The id of the image that it was made from; empty where it was made from none."""
    isolates_calls: bool = False
    """Whether each call runs by itself, so that one that is cancelled is over and harms no other."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether the instance can take calls, as far as is known without asking it."""

    @abstractmethod
    def on_exit(self, hook: Callable[[], None]) -> None:
        """Add a callback that runs once when the instance has gone without having been stopped."""

    @abstractmethod
    async def call(self, request: Request, log: InvocationLog | None) -> Answer:
        """Call the function. A call that is cancelled is abandoned.

        :param log: Where to write what the function says meanwhile; None drops it.
        :raises CallFailedError: There is no answer, or none that can be kept.
        :raises SpoolError: This worker has no room for a large answer.
        """

    @abstractmethod
    async def verify(self) -> bool:
        """Find out whether the instance still runs."""

    @abstractmethod
    async def kill(self) -> bool:
        """End the instance at once, in the middle of its calls; return whether it surely has. Never raises."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the instance and free what it uses. Never raises."""


class Runtime(ABC):
    """Starts instances of functions."""

    source: str
    """The kind of source that it can run: image, command or url."""
    host: str = "127.0.0.1"
    """The address at which its instances reach this host, once it is open; empty where they cannot."""

    @abstractmethod
    async def open(self) -> None:
        """Get ready; free what an earlier worker of the same data folder left behind."""

    @abstractmethod
    async def close(self) -> None:
        """Free everything."""

    @abstractmethod
    async def start(self, function: Function, secrets: Mapping[str, bytes], *, image_id: str = "") -> Instance:
        """Start an instance and return it once it is ready. One whose start is cancelled is removed.

        :param image_id: The image that it is to be made from, where others of its kind were; the name of the image may
            stand for another one by now. Empty for whatever it stands for, as it is where that image is gone.
        :param secrets: What it is to see as files, by their names.
        :raises StartFailedError: It did not start, or was not ready in time.
        """
