"""Under which verb and path each method of the API is found. A method that is not in the table is not served here.

The table follows the rules of google.api.http (AIP-127): a path names fields of the request in braces and may end with
a verb of its own behind a colon; a body is one field of the request, or `*` for all that the path does not name; what
neither has comes as parameters of the query.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

PREFIX: Final = "/v1/"
_VARIABLE: Final = re.compile(r"\{([a-z_.]+)\}")


class Form(enum.Enum):
    """How an answer comes, or a body goes."""

    MESSAGE = enum.auto()
    """One message, as JSON."""
    EVENTS = enum.auto()
    """A stream of server-sent events, which a client resumes."""
    LINES = enum.auto()
    """A stream of messages, a line of JSON each."""
    UPLOAD = enum.auto()
    """The body is the bytes themselves; the answer is one message."""
    DOWNLOAD = enum.auto()
    """The answer is the bytes themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Where a method is found."""

    verb: str
    path: str
    """With the names of fields in braces, as `/v1/invocations/{id}:stop`."""
    body: str = ""
    """The field that the body is, `*` for the whole request, empty where there is no body."""
    form: Form = Form.MESSAGE

    @property
    def variables(self) -> Sequence[str]:
        """The fields that the path names, in order."""
        return _VARIABLE.findall(self.path)


_INVOCATIONS: Final = "/homing.v1.InvocationService/"
_PAYLOADS: Final = "/homing.v1.PayloadService/"
_LOGS: Final = "/homing.v1.LogService/"
_DEAD_LETTERS: Final = "/homing.v1.DeadLetterService/"
_SIGNING_KEYS: Final = "/homing.v1.SigningKeyService/"
_FUNCTIONS: Final = "/homing.v1.FunctionService/"
_SECRETS: Final = "/homing.v1.SecretService/"
_KEYS: Final = "/homing.v1.KeyService/"

ROUTES: Final[Mapping[str, Route]] = {
    _INVOCATIONS + "Invoke": Route(verb="POST", path="/v1/functions/{spec.function}:invoke", body="spec"),
    _INVOCATIONS + "InvokeStream": Route(
        verb="POST", path="/v1/functions/{spec.function}:invokeStream", body="spec", form=Form.LINES
    ),
    _INVOCATIONS + "InvokeAsync": Route(verb="POST", path="/v1/functions/{spec.function}:invokeAsync", body="spec"),
    _INVOCATIONS + "BatchInvokeAsync": Route(verb="POST", path="/v1/invocations:batch", body="*"),
    _INVOCATIONS + "GetInvocation": Route(verb="GET", path="/v1/invocations/{id}"),
    _INVOCATIONS + "ListInvocations": Route(verb="GET", path="/v1/invocations"),
    _INVOCATIONS + "WaitInvocation": Route(verb="GET", path="/v1/invocations/{id}:wait"),
    _INVOCATIONS + "WatchResults": Route(verb="GET", path="/v1/results:watch", form=Form.EVENTS),
    _INVOCATIONS + "CountInvocations": Route(verb="GET", path="/v1/invocations:count"),
    _INVOCATIONS + "StopInvocation": Route(verb="POST", path="/v1/invocations/{id}:stop", body="*"),
    _INVOCATIONS + "BulkStop": Route(verb="POST", path="/v1/invocations:bulkStop", body="*", form=Form.LINES),
    _INVOCATIONS + "RerunInvocation": Route(verb="POST", path="/v1/invocations/{id}:rerun", body="*"),
    _INVOCATIONS + "BulkRerun": Route(verb="POST", path="/v1/invocations:bulkRerun", body="*", form=Form.LINES),
    _PAYLOADS + "WritePayload": Route(verb="POST", path="/v1/payloads", form=Form.UPLOAD),
    _PAYLOADS + "ReadPayload": Route(verb="GET", path="/v1/payloads/{blob_id}", form=Form.DOWNLOAD),
    _LOGS + "TailLogs": Route(verb="GET", path="/v1/invocations/{id}/logs", form=Form.EVENTS),
    _LOGS + "TailFunctionLogs": Route(verb="GET", path="/v1/functions/{function}/logs", form=Form.EVENTS),
    _DEAD_LETTERS + "ListDeadLetters": Route(verb="GET", path="/v1/deadLetters"),
    _DEAD_LETTERS + "RedriveDeadLetters": Route(verb="POST", path="/v1/deadLetters:redrive", body="*", form=Form.LINES),
    _DEAD_LETTERS + "PurgeDeadLetters": Route(verb="POST", path="/v1/deadLetters:purge", body="*", form=Form.LINES),
    _FUNCTIONS + "DeployFunction": Route(verb="PUT", path="/v1/functions/{function.name}", body="function"),
    _FUNCTIONS + "GetFunction": Route(verb="GET", path="/v1/functions/{name}"),
    _FUNCTIONS + "ListFunctions": Route(verb="GET", path="/v1/functions"),
    _FUNCTIONS + "DeleteFunction": Route(verb="DELETE", path="/v1/functions/{name}"),
    _FUNCTIONS + "PauseFunction": Route(verb="POST", path="/v1/functions/{name}:pause", body="*"),
    _FUNCTIONS + "ResumeFunction": Route(verb="POST", path="/v1/functions/{name}:resume", body="*"),
    _FUNCTIONS + "ScaleFunction": Route(verb="POST", path="/v1/functions/{name}:scale", body="*"),
    _SECRETS + "CreateSecret": Route(verb="POST", path="/v1/secrets", body="*"),
    _SECRETS + "UpdateSecret": Route(verb="PUT", path="/v1/secrets/{name}", body="*"),
    _SECRETS + "ListSecrets": Route(verb="GET", path="/v1/secrets"),
    _SECRETS + "DeleteSecret": Route(verb="DELETE", path="/v1/secrets/{name}"),
    _SIGNING_KEYS + "RotateSigningKey": Route(verb="POST", path="/v1/signingKeys:rotate", body="*"),
    _SIGNING_KEYS + "ListSigningKeys": Route(verb="GET", path="/v1/signingKeys"),
    _SIGNING_KEYS + "RevokeSigningKey": Route(verb="DELETE", path="/v1/signingKeys/{id}"),
    _KEYS + "CreateKey": Route(verb="POST", path="/v1/keys", body="key"),
    _KEYS + "ListKeys": Route(verb="GET", path="/v1/keys"),
    _KEYS + "RevokeKey": Route(verb="DELETE", path="/v1/keys/{key}"),
}
"""By the name of a method, as gRPC has it, where it is found."""

Values = tuple[str, ...]
"""What a path says for the fields that it names, in order."""


def read_path(raw: bytes) -> tuple[str, Values]:
    """Return the path of a request with `{}` in the place of what differs from one resource to the next, and that.

    Names of collections and of resources take turns, and only a colon that is sent as one begins a verb.

    :param raw: As it was sent, still percent-encoded, without the query.
    """
    path, colon, verb = raw.decode("latin-1").removeprefix(PREFIX).rpartition(":")
    if not colon or "/" in verb:
        path, colon, verb = (path + colon + verb), "", ""
    segments = path.split("/")
    values = tuple(map(unquote, segments[1::2]))
    if not all(values):
        return "", ()
    segments[1::2] = ["{}"] * len(values)
    return PREFIX + "/".join(segments) + colon + verb, values


def shape_of(route: Route) -> str:
    """Return the path of a route as `read_path` tells those of its requests."""
    return _VARIABLE.sub("{}", route.path)
