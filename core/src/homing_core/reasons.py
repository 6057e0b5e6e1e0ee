"""The stable, machine-readable reasons of failures, and of what is requeued."""

from enum import StrEnum


class FailureReason(StrEnum):
    """Why an attempt, a delivery or an invocation failed; homing.v1.FailureReason tells it to users."""

    HTTP_STATUS = "HTTP_STATUS"
    """The function, or the receiver of a callback, answered with a status that is not a success."""

    TIMEOUT = "TIMEOUT"
    """There was no whole answer in time."""

    CONNECTION_FAILED = "CONNECTION_FAILED"
    """No connection could be made."""

    CONNECTION_LOST = "CONNECTION_LOST"
    """The connection closed before the whole answer had come."""

    BAD_RESPONSE = "BAD_RESPONSE"
    """The answer was not HTTP, or broke its rules or bounds."""

    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    """The body of the answer is over the limit."""

    PAYLOAD_UNAVAILABLE = "PAYLOAD_UNAVAILABLE"
    """The payload, or the result that a callback is to carry, is stored apart and could not be read."""

    RESULT_NOT_STORED = "RESULT_NOT_STORED"
    """The body of the answer is too large for a message and could not be stored."""

    START_FAILED = "START_FAILED"
    """An instance of the function could not be started, or did not become ready."""

    IMAGE_NOT_FOUND = "IMAGE_NOT_FOUND"
    """The image of the function is neither here nor can it be pulled."""

    SECRETS_UNAVAILABLE = "SECRETS_UNAVAILABLE"
    """The secrets of the function did not come from a server, or could not be laid out for its instance."""

    EXIT_STATUS = "EXIT_STATUS"
    """The command of the function ended with another status than 0."""

    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    """What runs the function was killed since it used more memory than its limit, or than there was."""

    FUNCTION_DELETED = "FUNCTION_DELETED"
    """The function was deleted before the invocation started."""

    EXPIRED = "EXPIRED"
    """The invocation waited for its first start longer than it may."""

    STOPPED = "STOPPED"
    """The invocation was stopped: by request, or since the caller that it ran for synchronously went away."""

    POISON = "POISON"
    """The invocation was started again and again and its workers were lost each time."""

    WORKER_LOST = "WORKER_LOST"
    """The worker was lost during the attempt; whether the function finished is unknown."""

    TARGET_FORBIDDEN = "TARGET_FORBIDDEN"
    """A callback, destination or function is, or leads to, where requests may not go."""

    TARGET_INVALID = "TARGET_INVALID"
    """No request can be made of a callback's or destination's URI or headers."""

    RECEIVER_DOWN = "RECEIVER_DOWN"
    """The receiver did not answer several others in a row, so this attempt was not made."""

    UNROUTABLE = "UNROUTABLE"
    """The broker has no such exchange, or no queue that takes what is sent to it by this key."""

    BROKER_UNAVAILABLE = "BROKER_UNAVAILABLE"
    """The broker could not be reached, or did not take the message."""

    FUNCTION_NOT_FOUND = "FUNCTION_NOT_FOUND"
    """The function that an outcome was to go to does not exist."""

    DEPTH_EXCEEDED = "DEPTH_EXCEEDED"
    """The chain of invocations that cause each other is as long as it may be."""

    NOT_ALLOWED = "NOT_ALLOWED"
    """Whoever wished that an outcome invokes the function may not invoke it any more."""

    WORKER_ERROR = "WORKER_ERROR"
    """The worker itself failed; its log says how."""


class RequeueReason(StrEnum):
    """Why an invocation that has not ended goes back to the store; its history shows it as the detail of an event."""

    WAITED = "WAITED"
    """Its message was in the hands of a worker for so long that the broker would lose its patience."""

    REDELIVERED = "REDELIVERED"
    """Its message was redelivered so often that it may be poison."""

    UNSUPPORTED = "UNSUPPORTED"
    """It requires what the worker that took it does not know; another one may."""

    REPLACED = "REPLACED"
    """Its function became one of another kind between two attempts, and other workers may serve that."""

    LEASE_RETURNED = "LEASE_RETURNED"
    """Its worker leaves, and gives its lease back."""

    LEASE_ENDED = "LEASE_ENDED"
    """Its worker did not renew its lease, and is lost."""

    STARTED = "STARTED"
    """A worker took it for expired that had started in time, under a worker that was lost."""

    EXPIRED_AFTER_START = "EXPIRED_AFTER_START"
    """Its message expired at the broker after it had started in time, under a worker that was lost."""
