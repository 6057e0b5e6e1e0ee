"""The stable, machine-readable reasons of failures that workers report."""

from enum import StrEnum


class FailureReason(StrEnum):
    """Why an attempt, a delivery or an invocation failed."""

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

    FUNCTION_DELETED = "FUNCTION_DELETED"
    """The function was deleted before the invocation started."""

    EXPIRED = "EXPIRED"
    """The invocation waited for its first start longer than it may."""

    STOPPED = "STOPPED"
    """The invocation was stopped by request."""

    CALLBACK_FORBIDDEN = "CALLBACK_FORBIDDEN"
    """The callback's host is, or resolves to, an address outside of the networks that are allowed."""

    CALLBACK_INVALID = "CALLBACK_INVALID"
    """No request can be made of the callback's URL or headers."""

    WORKER_STOPPED = "WORKER_STOPPED"
    """The worker was stopped before the invocation ended."""

    WORKER_ERROR = "WORKER_ERROR"
    """The worker itself failed; its log says how."""
