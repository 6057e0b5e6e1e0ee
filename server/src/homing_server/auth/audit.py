"""One line for every control action: what was done, by whom, to what, and how it ended. Never payloads or secrets.

Those who are refused at the door have lines too, fewer than there are refusals: see `refusals`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict, SerializeToJsonError

from homing.v1.key_service_pb2 import Scope

_LOGGER: Final = "homing.audit"
_log = structlog.stdlib.get_logger(_LOGGER)

_SHOWN_CHARACTERS: Final = 256
"""So many characters at most of what a caller sent are shown."""
_LARGEST_FILTER_BYTES: Final = 64 * 1024
"""No filter within its bounds takes more."""
_SHOWN_FUNCTIONS: Final = 10
"""So many functions of a key are shown."""

Target = Mapping[str, object]


def _key(request: Any) -> Target:
    key = request.key
    scopes = [Scope.Name(scope).removeprefix("SCOPE_").lower() for scope in key.scopes if scope in Scope.values()]
    return {
        "key": _no_key(key.name),
        "scopes": scopes[:_SHOWN_FUNCTIONS],
        "functions": list(key.functions)[:_SHOWN_FUNCTIONS],
    }


def _filter(request: Any) -> Target:
    size = request.filter.ByteSize()
    if size > _LARGEST_FILTER_BYTES:
        # It is refused, and to write it out would take longer than that.
        return {"filter": f"of {size} bytes"}
    try:
        selection = str(MessageToDict(request.filter, preserving_proto_field_name=True))
    except SerializeToJsonError:
        # A time that is none, for which the call is refused.
        selection = text_format.MessageToString(request.filter, as_one_line=True)
    shown = {"filter": selection[:_SHOWN_CHARACTERS]}
    return {**shown, "dry_run": True} if request.dry_run else shown


_TARGETS: Final[Mapping[str, Callable[[Any], Target]]] = {
    "DeployFunction": lambda request: {"function": request.function.name},
    "DeleteFunction": lambda request: {"function": request.name},
    "PauseFunction": lambda request: {"function": request.name},
    "ResumeFunction": lambda request: {"function": request.name},
    "ScaleFunction": lambda request: {"function": request.name},
    "StopInvocation": lambda request: {"invocation": request.id},
    "RerunInvocation": lambda request: {"invocation": request.id},
    "BulkStop": _filter,
    "BulkRerun": _filter,
    "RedriveDeadLetters": _filter,
    "PurgeDeadLetters": _filter,
    "CreateSecret": lambda request: {"secret": request.name},
    "UpdateSecret": lambda request: {"secret": request.name},
    "DeleteSecret": lambda request: {"secret": request.name},
    "RotateSigningKey": lambda request: {"function": request.function},
    "RevokeSigningKey": lambda request: {"signing_key": _no_key(request.id)},
    "CreateKey": _key,
    "RevokeKey": lambda request: {"key": _no_key(request.key)},
}
"""By the name of the method, what a control action is about."""


def is_control(method: str) -> bool:
    """Tell whether a method is a control action."""
    return method.rpartition("/")[2] in _TARGETS


def log_action(method: str, *, caller: str, request: Any, outcome: str) -> None:
    """Write the line of a control action.

    :param request: What was asked for; None where it was refused before it was read.
    :param outcome: The name of the gRPC status.
    """
    action = method.rpartition("/")[2]
    target = {} if request is None else _TARGETS[action](request)
    fields = {name: value[:_SHOWN_CHARACTERS] if isinstance(value, str) else value for name, value in target.items()}
    _log.info("audit", action=action, caller=caller, outcome=outcome, **fields)


def log_refusal(*, peer: str, caller: str, reason: str, what: str, number: int) -> None:
    """Write the line of calls that were refused at the door.

    :param peer: The host that they came from; empty for several.
    :param caller: Whose key was shown; empty where nobody knows.
    :param what: What was asked for, if it is one call.
    :param number: How many there were.
    """
    asked = {"asked": what[:_SHOWN_CHARACTERS]} if what else {}
    _log.info("audit_refused", peer=peer, caller=caller, reason=reason, number=number, **asked)


def log_at_any_level() -> None:
    """Have the lines written whatever the level of the log is."""
    logging.getLogger(_LOGGER).setLevel(logging.INFO)


def _no_key(name: str) -> str:
    """Return the id or the name of a key, and nothing where by mistake it is the key itself."""
    return "" if name.startswith(("hk_", "whsec_")) else name
