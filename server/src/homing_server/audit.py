"""One line for every control action: what was done, by whom, to what, and how it ended. Never payloads or secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from google.protobuf.json_format import MessageToDict

_LOGGER: Final = "homing.audit"
_log = structlog.stdlib.get_logger(_LOGGER)

_SHOWN: Final = 256
"""So many characters at most of what a caller sent are shown."""
_MOST: Final = 10
"""So many functions of a key are shown."""

Target = Mapping[str, object]


def _key(request: Any) -> Target:
    key = request.key
    scopes = [str(scope).removeprefix("SCOPE_").lower() for scope in MessageToDict(key).get("scopes", ())]
    return {"key": key.name, "scopes": scopes, "functions": list(key.functions)[:_MOST]}


def _filter(request: Any) -> Target:
    shown = {"filter": str(MessageToDict(request.filter, preserving_proto_field_name=True))[:_SHOWN]}
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
    "RevokeSigningKey": lambda request: {"signing_key": request.id},
    "CreateKey": _key,
    "RevokeKey": lambda request: {"key": request.key if _may_be_shown(request.key) else ""},
}
"""By the name of the method, what a control action is about."""


def is_control(method: str) -> bool:
    """Tell whether a method is a control action."""
    return method.rpartition("/")[2] in _TARGETS


def tell(method: str, *, caller: str, request: Any, outcome: str) -> None:
    """Write the line of a control action.

    :param request: What was asked for; None where it was refused before it was read.
    :param outcome: The name of the gRPC status.
    """
    action = method.rpartition("/")[2]
    target = {} if request is None else _TARGETS[action](request)
    told = {name: value[:_SHOWN] if isinstance(value, str) else value for name, value in target.items()}
    _log.info("audit", action=action, caller=caller, outcome=outcome, **told)


def show_always() -> None:
    """Have the lines written whatever the level of the log is."""
    logging.getLogger(_LOGGER).setLevel(logging.INFO)


def _may_be_shown(key: str) -> bool:
    """Tell whether this is the id or the name of a key, and not by mistake the key itself."""
    return not key.startswith("hk_")
