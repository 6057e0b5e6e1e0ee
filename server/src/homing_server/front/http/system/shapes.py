"""The JSON of OpenFaaS's gateway, and what it stands for here.

Source: the types of https://github.com/openfaas/faas-provider (types/), as faas-cli 0.18 sends and reads them.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

from homing.v1.function_pb2 import Function
from homing.v1.function_service_pb2 import DeployFunctionRequest
from homing_server.errors import ApiError, Violation, invalid_request
from homing_server.functions.quantities import amount_of

NAMESPACE: Final = "openfaas-fn"
"""The one namespace; a function is found with and without it."""
_PROCESS: Final = "fprocess"
_DEPLOYED: Final = ("image", "env", "secrets", "labels", "annotations", "limits")
"""The fields of a function that a deployment says; the others stay as they are."""

Json = Mapping[str, Any]


class Reader:
    """Reads the fields of a JSON object, and remembers which are of another kind than they should be."""

    def __init__(self, given: Json) -> None:
        self._given = given
        self._violations: list[Violation] = []

    def text(self, field: str, *, required: bool = False) -> str:
        """Return a text; empty where it is not there."""
        value = self._given.get(field)
        if value is None or value == "":
            if required:
                self.refuse(field, "must not be empty")
            return ""
        if not isinstance(value, str):
            self.refuse(field, "must be a string")
            return ""
        return value

    def number(self, field: str) -> int:
        """Return a whole number; 0 where it is not there."""
        value = self._given.get(field)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            self.refuse(field, "must be a whole number, at least 0")
            return 0
        return value

    def texts(self, field: str) -> list[str]:
        """Return a list of texts; empty where it is not there."""
        value = self._given.get(field)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.refuse(field, "must be a list of strings")
            return []
        return value

    def map(self, field: str) -> dict[str, str]:
        """Return a map of texts; empty where it is not there."""
        value = self._given.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            self.refuse(field, "must be an object of strings")
            return {}
        return value

    def amount(self, field: str, within: Mapping[str, str], name: str) -> float:
        """Return an amount in a map that was read; 0 where it is not there."""
        text = within.get(name, "")
        amount = amount_of(text) if text else 0.0
        if amount is None:
            self.refuse(f"{field}.{name}", "must be an amount such as 128Mi of memory or 100m of a processor")
        return amount or 0.0

    def namespace(self, field: str = "namespace") -> None:
        """Check that a namespace, where one is named, is the one there is."""
        if self.text(field) not in {"", NAMESPACE}:
            self.refuse(field, f"must be {NAMESPACE}: there are no others")

    def refuse(self, field: str, why: str) -> None:
        """Note that a field breaks a rule."""
        self._violations.append(Violation(field=field, description=why))

    def done(self) -> None:
        """Check that all fields were what they should be.

        :raises ApiError: INVALID_ARGUMENT.
        """
        if self._violations:
            raise invalid_request(self._violations)


def deployment_of(given: Json) -> DeployFunctionRequest:
    """Return the deployment that a FunctionDeployment asks for.

    What OpenFaaS does not know of a function stays as it is. Constraints, requests and a file system that is read-only
    have no meaning here.

    :raises ApiError: INVALID_ARGUMENT.
    """
    reader = Reader(given)
    function = Function(name=reader.text("service", required=True), image=reader.text("image", required=True))
    process = reader.text("envProcess")
    if process:
        function.env[_PROCESS] = process
    function.env.update(reader.map("envVars"))
    function.secrets.extend(reader.texts("secrets"))
    function.labels.update(reader.map("labels"))
    function.annotations.update(reader.map("annotations"))
    limits = reader.map("limits")
    function.limits.memory_bytes = _whole(reader.amount("limits", limits, "memory"))
    function.limits.cpu_millis = min(_whole(reader.amount("limits", limits, "cpu") * 1000), 2**31 - 1)
    reader.namespace()
    reader.done()
    request = DeployFunctionRequest(function=function)
    request.update_mask.paths.extend(_DEPLOYED)
    return request


def _whole(amount: float) -> int:
    """Return an amount rounded up, as Kubernetes does: what is less than one unit must not become no limit."""
    return math.ceil(round(amount, 6))


def status_of(function: Function, *, replicas: int, served: bool, invocations: int) -> dict[str, Any]:
    """Return the FunctionStatus of a function.

    A function that has scaled to zero can be invoked all the same, which `faas-cli` calls ready where a replica is
    available: so one is told of as soon as a worker serves it.

    :param replicas: How many instances there are.
    :param served: Whether a worker serves it.
    :param invocations: Of how many there are records.
    """
    env = dict(function.env)
    limits = {}
    if function.limits.memory_bytes:
        limits["memory"] = str(function.limits.memory_bytes)
    if function.limits.cpu_millis:
        limits["cpu"] = f"{function.limits.cpu_millis}m"
    shown = {
        "name": function.name,
        "image": function.image or function.url or " ".join((*function.command.args, *function.http_command.args)),
        "namespace": NAMESPACE,
        "envProcess": env.pop(_PROCESS, ""),
        "envVars": env,
        "secrets": list(function.secrets),
        "labels": dict(function.labels),
        "annotations": dict(function.annotations),
        "limits": limits,
        "invocationCount": float(invocations),
        "replicas": max(replicas, int(served)),
        "availableReplicas": max(replicas, int(served)),
        "createdAt": function.create_time.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {name: value for name, value in shown.items() if value not in ("", {}, [])}


def secret_value(given: Json) -> bytes:
    """Return the value of a secret, which is given as text or as bytes in base64.

    :raises ApiError: INVALID_ARGUMENT.
    """
    reader = Reader(given)
    raw, text = reader.text("rawValue"), reader.text("value")
    reader.done()
    if not raw:
        return text.encode()
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        raise _refused("rawValue", "must be bytes in base64") from None


def function_name(text: str) -> str:
    """Return the name of a function that is written with or without its namespace."""
    return text.removesuffix(f".{NAMESPACE}")


def _refused(field: str, why: str) -> ApiError:
    return invalid_request([Violation(field=field, description=why)])
