"""Invoke function containers now or later; the results find their way home.

::

    from homing import Client

    with Client("localhost:50051") as client:
        client.functions.deploy(name="figlet", image="figlet:1")
        print(client.invoke("figlet", "hello").text)
        call = client.invoke_async("figlet", "hello")
        print(call.result(timeout=60).text)
"""

import logging

from homing._aio.answer_stream import AsyncAnswerStream
from homing._aio.client import AsyncClient
from homing._aio.dead_letters import AsyncDeadLetters
from homing._aio.functions import AsyncFunctions
from homing._aio.handle import AsyncInvocationHandle
from homing._aio.keys import AsyncKeys
from homing._aio.listing import AsyncDeadLetterList, AsyncInvocationList
from homing._aio.logs import AsyncLogTail
from homing._aio.secrets import AsyncSecrets
from homing._aio.signing_keys import AsyncSigningKeys
from homing._aio.typed import AsyncTypedFunction
from homing._aio.watch import AsyncResultWatch
from homing._core.bulk import BulkRerun, BulkStopped, InvocationCounts
from homing._core.dead_letter import DeadLetter, DeadLetterOptions, Purged, Redriven
from homing._core.deploy import FunctionOptions
from homing._core.envelope import Envelope, EnvelopePayload, parse_envelope
from homing._core.filter import FilterOptions
from homing._core.function import Function, Limits
from homing._core.headers import Headers, HeaderValues
from homing._core.interceptors import AsyncInterceptor, Call, Interceptor
from homing._core.key import ApiKey, NewApiKey
from homing._core.logs import FunctionLogLine, LogLine
from homing._core.names import (
    AttemptOutcome,
    DeadLetterKind,
    DeliveryKind,
    DeliveryState,
    EventType,
    InvocationState,
    LogStream,
    Scope,
    WaitReason,
)
from homing._core.options import AsyncOptions, InvocationRequest, RunOptions
from homing._core.payload import MAX_PAYLOAD
from homing._core.policy import RetryPolicy
from homing._core.reasons import ErrorReason, FailureReason
from homing._core.secret import NewSigningKey, Secret, SigningKey
from homing._core.values import (
    Answer,
    Attempt,
    Blob,
    Delivery,
    DeliveryAttempt,
    Event,
    Failure,
    Invocation,
    Payload,
    Progress,
    Result,
    StopRequest,
    WatchEvent,
)
from homing._core.version import __version__
from homing._core.webhook import VerifiedCallback, verify_callback
from homing._sync.answer_stream import AnswerStream
from homing._sync.client import Client
from homing._sync.dead_letters import DeadLetters
from homing._sync.functions import Functions
from homing._sync.handle import InvocationHandle
from homing._sync.keys import Keys
from homing._sync.listing import DeadLetterList, InvocationList
from homing._sync.logs import LogTail
from homing._sync.secrets import Secrets
from homing._sync.signing_keys import SigningKeys
from homing._sync.typed import TypedFunction
from homing._sync.watch import ResultWatch
from homing.errors import (
    AbortedError,
    AlreadyExistsError,
    CallbackVerificationError,
    ClientUseError,
    ClosedClientError,
    DeadlineExceededError,
    FailedPreconditionError,
    ForkedClientError,
    FunctionError,
    FunctionTimeoutError,
    HomingError,
    InvalidEnvelopeError,
    InvalidRequestError,
    InvalidResultError,
    InvocationEndedError,
    InvocationError,
    InvocationExpiredError,
    InvocationInvalidError,
    InvocationNotEndedError,
    InvocationStoppedError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitedError,
    RequestError,
    ResultTimeoutError,
    ResumeTokenExpiredError,
    RevisionMismatchError,
    ServerError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
    WrongLoopError,
)

__all__ = [
    "MAX_PAYLOAD",
    "AbortedError",
    "AlreadyExistsError",
    "Answer",
    "AnswerStream",
    "ApiKey",
    "AsyncAnswerStream",
    "AsyncClient",
    "AsyncDeadLetterList",
    "AsyncDeadLetters",
    "AsyncFunctions",
    "AsyncInterceptor",
    "AsyncInvocationHandle",
    "AsyncInvocationList",
    "AsyncKeys",
    "AsyncLogTail",
    "AsyncOptions",
    "AsyncResultWatch",
    "AsyncSecrets",
    "AsyncSigningKeys",
    "AsyncTypedFunction",
    "Attempt",
    "AttemptOutcome",
    "Blob",
    "BulkRerun",
    "BulkStopped",
    "Call",
    "CallbackVerificationError",
    "Client",
    "ClientUseError",
    "ClosedClientError",
    "DeadLetter",
    "DeadLetterKind",
    "DeadLetterList",
    "DeadLetterOptions",
    "DeadLetters",
    "DeadlineExceededError",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryKind",
    "DeliveryState",
    "Envelope",
    "EnvelopePayload",
    "ErrorReason",
    "Event",
    "EventType",
    "FailedPreconditionError",
    "Failure",
    "FailureReason",
    "FilterOptions",
    "ForkedClientError",
    "Function",
    "FunctionError",
    "FunctionLogLine",
    "FunctionOptions",
    "FunctionTimeoutError",
    "Functions",
    "HeaderValues",
    "Headers",
    "HomingError",
    "Interceptor",
    "InvalidEnvelopeError",
    "InvalidRequestError",
    "InvalidResultError",
    "Invocation",
    "InvocationCounts",
    "InvocationEndedError",
    "InvocationError",
    "InvocationExpiredError",
    "InvocationHandle",
    "InvocationInvalidError",
    "InvocationList",
    "InvocationNotEndedError",
    "InvocationRequest",
    "InvocationState",
    "InvocationStoppedError",
    "Keys",
    "Limits",
    "LogLine",
    "LogStream",
    "LogTail",
    "NewApiKey",
    "NewSigningKey",
    "NotFoundError",
    "Payload",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Progress",
    "Purged",
    "RateLimitedError",
    "Redriven",
    "RequestError",
    "Result",
    "ResultTimeoutError",
    "ResultWatch",
    "ResumeTokenExpiredError",
    "RetryPolicy",
    "RevisionMismatchError",
    "RunOptions",
    "Scope",
    "Secret",
    "Secrets",
    "ServerError",
    "SigningKey",
    "SigningKeys",
    "StopRequest",
    "TypedFunction",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "VerifiedCallback",
    "Violation",
    "WaitReason",
    "WatchEvent",
    "WrongLoopError",
    "__version__",
    "parse_envelope",
    "verify_callback",
]

logging.getLogger("homing").addHandler(logging.NullHandler())
